"""The options of a call become one request, and its digest says whether an image is done already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from simmat.inference import PredictOptions
from simmat.inference.request import MapPrompts, Request, resolve
from simmat.plugins.loader import load_plugins
from simmat.predictor import Predictor

MODEL = cast(Predictor, SimpleNamespace(bundle=None, calibration=None, dense=None, class_names={}))


def _asked(**options: Any) -> Request:
    return resolve(PredictOptions.model_validate(options), MODEL, load_plugins(), print)


def test_a_click_is_written_by_itself_and_with_a_format_of_objects_together() -> None:
    """The files of one object are for a person, those of all objects for a program."""
    assert _asked(points=["3,4"]).kinds == ("prompts",)
    assert _asked(points=["3,4"], formats="labels").kinds == ("objects",)


@pytest.mark.parametrize("options", [{"uncertainty": True}, {"formats": "mask,uncertainty"}])
def test_uncertainty_is_found_where_it_is_written(options: dict[str, Any]) -> None:
    """Five views of the image are encoded for it."""
    assert _asked(points=["3,4"], **options).uncertainty
    assert not _asked(points=["3,4"]).uncertainty


def test_a_score_to_keep_is_also_the_one_to_search_from() -> None:
    """Masks that are dropped at the end need not be compared with others before."""
    asked = _asked(everything=True, min_score=0.2)
    assert asked.search is not None
    assert asked.search.objects is not None
    assert (asked.min_score, asked.search.objects.min_score) == (0.2, 0.2)


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (lambda request: replace(request, cache=Path("embeddings")), True),
        (lambda request: replace(request, tile=64), False),
        (lambda request: replace(request, min_score=0.25), False),
        (lambda request: replace(request, formats=_asked(points=["3,4"], formats="mask").formats), False),
    ],
)
def test_an_image_is_done_if_the_same_was_asked(
    tmp_path: Path, change: Callable[[Request], Request], is_same: bool
) -> None:
    """A changed option must not leave old results, and a folder of embeddings changes nothing."""
    files = {"gray": tmp_path / "a.png"}
    request = _asked(points=["3,4"])
    assert (change(request).digest(files, {}, "model") == request.digest(files, {}, "model")) == is_same
    assert request.digest(files, {}, "another model") != request.digest(files, {}, "model")


def test_a_prompts_file_is_known_by_its_content_not_by_how_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call may be started in another folder."""
    (tmp_path / "map.geojson").write_text("{}")
    monkeypatch.chdir(tmp_path)
    files: dict[str, Path] = {}
    asked = _asked(points=["3,4"])
    digests = {
        replace(asked, map_prompts=MapPrompts(file, None)).digest(files, {}, "model")
        for file in (Path("map.geojson"), tmp_path / "map.geojson")
    }
    assert len(digests) == 1
    (tmp_path / "map.geojson").write_text('{"features": []}')
    changed = replace(asked, map_prompts=MapPrompts(tmp_path / "map.geojson", None))
    assert changed.digest(files, {}, "model") not in digests

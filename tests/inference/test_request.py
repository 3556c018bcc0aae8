"""The options of a call become one request: what is found and written, and whether an image is done already."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from found_results import PLACE, formats_for, objects_result

from simmat.errors import ConfigError, DataError, UnknownNameError
from simmat.inference import PredictOptions
from simmat.inference.request import Request, choose_formats, resolve
from simmat.plugin_specs import ResultKind
from simmat.plugins.loader import load_plugins
from simmat.predictor import Predictor

MODEL = cast(
    Predictor,
    SimpleNamespace(bundle=None, calibration=None, dense=None, class_names={}),
)


def _asked(**options: Any) -> Request:
    return resolve(
        PredictOptions.model_validate(options), MODEL, load_plugins(), None, print
    )


def test_a_click_is_written_by_itself_and_with_a_format_of_objects_together() -> None:
    """The files of one object are for a person, those of all objects for a program."""
    assert _asked(points=["3,4"]).kinds == ("prompts",)
    assert _asked(points=["3,4"], formats="labels").kinds == ("objects",)


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({"cache": "embeddings"}, True),
        ({"executor": "tcp://host:1"}, True),
        ({"tile": 64}, False),
        ({"mask": "best"}, False),
        ({"min_score": 0.25}, False),
        ({"crs": "EPSG:4326"}, False),
        ({"formats": "mask"}, False),
        ({"uncertainty": True}, False),
    ],
)
def test_an_image_is_done_if_the_same_was_asked(
    tmp_path: Path, changed: dict[str, Any], is_same: bool
) -> None:
    """A changed option must not leave old results, and a folder of embeddings changes nothing."""
    files = {"gray": tmp_path / "a.png"}
    digest = _asked(points=["3,4"]).digest(files, {}, "model")
    assert (
        _asked(points=["3,4"], **changed).digest(files, {}, "model") == digest
    ) == is_same
    assert _asked(points=["3,4"]).digest(files, {}, "another model") != digest


def test_a_prompts_file_is_known_by_its_content_not_by_how_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call may be started in another folder."""
    file = tmp_path / "map.geojson"
    file.write_text("{}")
    monkeypatch.chdir(tmp_path)
    digests = {
        _asked(prompts=path).digest({}, {}, "model")
        for path in (Path("map.geojson"), file)
    }
    assert len(digests) == 1
    file.write_text('{"features": []}')
    assert _asked(prompts=file).digest({}, {}, "model") not in digests


@pytest.mark.parametrize(
    ("names", "kind", "cause"),
    [(["overlays"], "objects", "overlay"), (["coco"], "classes", "labels")],
)
def test_formats_are_checked_before_any_work(
    names: list[str], kind: ResultKind, cause: str
) -> None:
    """A wrong word must not be found after an hour of prediction."""
    with pytest.raises((ConfigError, UnknownNameError), match=cause):
        choose_formats(names, [kind], load_plugins())


@pytest.mark.parametrize(
    ("names", "placed", "expected"),
    [
        (["auto"], False, ["labels", "overlay"]),
        (["auto"], True, ["gpkg", "overlay", "geotiff"]),
        (["auto", "labels"], True, ["gpkg", "labels", "overlay", "geotiff"]),
        (["overlay", "coco"], True, ["overlay"]),
    ],
)
def test_auto_are_the_formats_that_suit_the_image(
    names: list[str], placed: bool, expected: list[str]
) -> None:
    """COCO, one file for all images, is not among the files of one."""
    pytest.importorskip("simmat_plugin_geo")
    assert [
        one.name
        for one in formats_for(
            objects_result((9, 9), place=PLACE if placed else None), names
        )
    ] == expected


def test_a_format_that_cannot_hold_an_image_is_refused_by_name_and_left_out_by_auto() -> (
    None
):
    """An hour of work must not end at the last step, and a user of auto never asked for it."""
    large = objects_result((2**16, 2**16))
    with pytest.raises(DataError, match="pixels"):
        formats_for(large, ["coco"])
    assert [one.name for one in formats_for(large, ["auto"])] == ["labels", "overlay"]

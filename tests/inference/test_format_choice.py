"""Which files are written: by name, or those that suit an image."""

from __future__ import annotations

import pytest
from found_results import PLACE, formats_for, objects_result

from simmat.errors import ConfigError, DataError, UnknownNameError
from simmat.inference.format_choice import choose_formats
from simmat.plugin_specs import ResultKind
from simmat.plugins.loader import load_plugins


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

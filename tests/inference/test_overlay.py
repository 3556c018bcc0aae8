"""Pictures of found objects and class maps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from found_results import classes_result, found_box, objects_result, write_result
from PIL import Image

from simmat.drawing.found import MAX_SIDE
from simmat.drawing.overlay import class_colour
from simmat.inference.formats import draw_result


def test_objects_are_drawn_in_colours_of_their_own_where_they_are(
    tmp_path: Path,
) -> None:
    """A picture is how one sees at a glance what was found."""
    result = objects_result(
        (600, 800),
        found_box(100, 100, 200, 200, score=0.9),
        found_box(300, 400, 400, 700),
    )
    assert write_result(result, ["overlay"], tmp_path) == ["a_overlay.png"]
    drawn = np.asarray(Image.open(tmp_path / "a_overlay.png"))
    assert drawn.shape == (600, 800, 3)
    one, other, ground = drawn[110, 110], drawn[310, 410], drawn[50, 50]
    assert len({tuple(pixel.tolist()) for pixel in (one, other, ground)}) == 3
    assert (ground == 128).all()


def test_objects_have_the_colours_of_their_classes_as_in_the_class_map() -> None:
    """One colour that means two classes in two pictures of the same image is read wrongly."""
    objects = objects_result(
        (600, 600), found_box(0, 0, 200, 600, 2), found_box(300, 0, 500, 600, 2)
    )
    classes = np.zeros((600, 600), np.uint8)
    classes[:200], classes[300:500], classes[550:] = 2, 2, 1
    drawn, mapped = (
        np.asarray(draw_result(one)) for one in (objects, classes_result(classes))
    )
    np.testing.assert_array_equal(drawn[:540], mapped[:540])
    assert len(drawn) > 600  # with a legend


def test_a_large_image_is_shown_small_and_no_object_is_lost() -> None:
    """An object of one pixel in 20,000 still shows."""
    result = objects_result((20_000, 10_000), found_box(9_999, 5_001, 10_000, 5_002))
    drawn = np.asarray(draw_result(result))
    assert max(drawn.shape) == MAX_SIDE
    assert (drawn[1018:1029, 507:518] != 128).any()
    assert (drawn[:900] == 128).all()


def test_a_legend_names_the_classes_in_the_image_and_only_these() -> None:
    """Background and places without a measurement are no class."""
    classes = np.zeros((600, 600), np.uint8)
    classes[:50] = 255
    plain = draw_result(classes_result(classes, nodata=255))
    assert plain.size == (600, 600)
    classes[100:200] = 2
    named = draw_result(classes_result(classes, nodata=255))
    assert named.height > 600
    others = draw_result(
        replace(classes_result(classes, nodata=255), class_names={2: "meadow"})
    )
    assert np.asarray(named)[600:].tolist() != np.asarray(others)[600:].tolist()


# Linear RGB as people see it who lack one kind of cone (Viénot, Brettel, Mollon 1999).
PROTAN = np.array(
    [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]
)
DEUTAN = np.array(
    [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
)


@pytest.mark.parametrize(
    "eyes", [np.eye(3), PROTAN, DEUTAN], ids=["all cones", "no L cones", "no M cones"]
)
def test_the_colours_of_the_first_eight_classes_differ(eyes: np.ndarray) -> None:
    """Also for people with colour-blindness."""
    srgb = np.array([class_colour(value) for value in range(1, 9)]) / 255
    seen = np.clip((((srgb + 0.055) / 1.055) ** 2.4) @ eyes.T, 0, 1)  # (8, 3) linear
    nearest = min(
        np.linalg.norm(np.cbrt(a) - np.cbrt(b))
        for a, b in itertools.combinations(seen, 2)
    )
    assert nearest > 0.1

"""The commands of the pages that simulate a data set and click on one of its images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from installed import need_plugins

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLICK = re.compile(
    r"^simmat predict .*images/s(\d{5})\.\w+ .*--point (\d+),(\d+)", re.MULTILINE
)
CLICKS = [
    pytest.param(page, *(int(number) for number in found.groups()), id=page.name)
    for page in PAGES
    for found in CLICK.finditer(page.read_text(encoding="utf-8"))
]


def test_the_page_for_newcomers_has_a_click() -> None:
    """Otherwise the next test would hold nothing."""
    assert "first-masks.md" in [click.id for click in CLICKS]


@pytest.mark.parametrize(("page", "index", "x", "y"), CLICKS)
def test_a_click_lies_well_inside_of_an_object(
    page: Path, index: int, x: int, y: int
) -> None:
    """The first mask that a newcomer sees shows whether SimMAT works; one of bare ground looks like a failure."""
    need_plugins("scenes")
    from simmat_plugin_scenes.dataset import SIZE_HW
    from simmat_plugin_scenes.generate import generate_scene

    (simulate,) = re.findall(
        r"^simmat data simulate .*",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    seed = re.search(r"--seed (\d+)", simulate)
    assert "--size" not in simulate, "the test simulates images of the default size"
    scene = generate_scene(
        np.random.default_rng([int(seed[1]) if seed else 0, index, 0]), SIZE_HW
    )
    around = scene.instance[y - 3 : y + 4, x - 3 : x + 4]
    assert scene.instance[y, x] > 0
    assert (around == scene.instance[y, x]).all(), (
        "a click at the edge is hard to answer"
    )

"""Keys and clicks that come quickly one after another are all done, in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Server, Tab, browser, folder_of, same_on_disk, until

pytestmark = pytest.mark.slow

SLOW_S = 0.4
"""How long saving takes here, so that what is typed meanwhile comes before the answer."""


@pytest.fixture
def page(tmp_path: Path, server_of) -> Iterator[tuple[Tab, list[tuple[int, int]]]]:
    """A tab at the first of four equal images whose labels are saved slowly, and the centres of the objects."""
    centres = folder_of(tmp_path, list("abcd"))
    server: Server = server_of("--modality", "gray")

    def late(route) -> None:
        time.sleep(SLOW_S)
        route.continue_()

    with browser() as new:
        tab = new()
        tab.goto(server.address)
        tab.page.route("**/edits", late)
        yield tab, centres
        tab.page.close(run_before_unload=False)


def test_done_typed_straight_after_enter_marks_the_image(page) -> None:
    """Each image ends with these two keys; the second was lost."""
    tab, centres = page
    tab.click(*centres[0])
    tab.press("Enter", "d")
    until(lambda: tab.run("main.app.labels.done"), "the image is done")
    assert tab.state()["objects"] == 1
    assert "not saved yet" not in tab.text("#messages")


def test_the_next_image_opens_after_what_was_accepted_is_saved(page) -> None:
    """Else its mask was kept as a drawing, and came back with the image."""
    tab, centres = page
    tab.click(*centres[0])
    tab.press("Enter", "PageDown")
    until(lambda: tab.run("main.app.image.name") == "b", "the next image is open")
    assert tab.run("main.app.drafts.size") == 0
    tab.ready()
    tab.press("PageUp")
    until(lambda: tab.run("main.app.image.name") == "a", "the image is open again")
    assert tab.state()["objects"] == 1
    assert not tab.state()["draft"]


def test_a_click_straight_after_enter_begins_the_next_object(page) -> None:
    """It was added to the clicks of the accepted object, and lost with them."""
    tab, centres = page
    tab.click(*centres[0])
    tab.press("Enter")
    tab.page.mouse.click(*tab.place(*centres[1]))
    until(
        lambda: tab.state()["objects"] == 1 and tab.drafted() is not None,
        "the mask of the second click",
    )
    assert len(tab.run("main.app.draft.state.points")) == 1
    assert tab.drafted()[centres[1][1], centres[1][0]]


def test_suggestions_are_decided_as_fast_as_one_types(page, tmp_path: Path) -> None:
    """Each key counts, for the suggestion that comes next."""
    tab, _ = page
    tab.press("s")
    at, count = until(lambda: tab.state()["walk"], "there are suggestions")
    assert at == 0
    assert count >= 3
    tab.press("Enter", "Enter", "n")
    until(lambda: (tab.state()["walk"] or [3])[0] == 3, "three are decided")
    assert tab.state()["objects"] == 2
    assert same_on_disk(tab, tmp_path / "masks/a.png")
    tab.press("Escape")
    assert tab.state()["walk"] is None


def test_each_page_down_goes_on_by_one(page) -> None:
    """Two of them went to the same image, and D then marked the image that was left."""
    tab, _ = page
    tab.press("PageDown", "PageDown")
    until(lambda: tab.run("main.app.image.name") == "c", "the third image is open")


def test_a_message_goes_with_its_image(page) -> None:
    """What is said of one image is not true of the next."""
    tab, centres = page
    tab.click(*centres[0])
    tab.press("d")
    assert "not saved yet" in tab.text("#messages")
    tab.press("Escape", "PageDown")
    until(lambda: tab.run("main.app.image.name") == "b", "the next image is open")
    assert tab.text("#messages") == ""

"""The frame bar of the annotator's page: follow while one watches, accept, and find more like it."""

import numpy as np
import pytest
from browser import browser, until
from PIL import Image

from simmat.io.images import write_image

pytestmark = pytest.mark.slow


def test_objects_are_followed_while_one_watches(tmp_path, server_of):
    """Keys follow, accept and go on; what is shown is on disk as one object, and is found in frames that are not."""
    rows, columns = np.mgrid[:96, :96]
    centres = [(24 + 4 * number, 40) for number in range(8)]
    noise = np.random.default_rng(0).integers(20, 34, (96, 96)).astype(np.uint8)
    for number, (x, y) in enumerate(centres):
        disc = (columns - x) ** 2 + (rows - y) ** 2 <= 15**2
        write_image(
            tmp_path / f"frames/walk/f{number}.png",
            np.where(disc, 200, noise)[None].astype(np.uint8),
        )
    server = server_of("--modality", "gray")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        assert "Frame 1 of 8: no labels" in tab.text("#frame-text")
        tab.click(*centres[0])
        tab.saves("Enter")
        assert tab.text("#frame-text") == "Frame 1 of 8: keyframe"
        tab.page.fill("#follow-count", "4")
        tab.page.locator("#canvas").focus()
        tab.press("t")
        until(lambda: tab.state()["following"] == "done", "four frames are followed")
        until(
            lambda: tab.run("main.app.image.name") == "walk/f4", "the last one is shown"
        )
        assert "Frame 5 of 8: followed, score 0." in tab.text("#frame-text")
        for number in range(1, 5):
            mask = np.asarray(Image.open(tmp_path / f"masks/walk/f{number}.png"))
            x, y = centres[number]
            assert mask[y, x] == 1
            assert 0.7 < (mask == 1).sum() / (np.pi * 15**2) < 1.3
        assert not (tmp_path / "masks/walk/f5.png").exists()
        bar = tab.page.locator("#frame-bar").bounding_box()
        tab.page.mouse.click(
            bar["x"] + 2.5 / 8 * bar["width"], bar["y"] + bar["height"] / 2
        )
        until(
            lambda: tab.run("main.app.image.name") == "walk/f2", "a click opens a frame"
        )
        tab.press("Enter")
        until(
            lambda: tab.run("main.app.image.name") == "walk/f3",
            "the next followed frame is shown",
        )
        assert [
            one["followed"] for one in tab.run("main.lists.images.slice(0, 5)")
        ] == [0, 1, 0, 1, 1]
        tab.press("k")  # nothing else is like it here
        until(
            lambda: "Nothing else here looks like" in tab.text("#messages"),
            "this image was searched",
        )
        tab.open("walk/f7")
        tab.press("k")
        until(lambda: tab.state()["walk"], "what looks like it is suggested")
        tab.saves("Enter")
        assert next(iter(tab.shown().values()))[centres[7][1], centres[7][0]]
        tab.press("Escape", "T")
        until((tmp_path / "masks/walk/f5.png").exists, "frames before are followed")
        server.kill()
        kept = {
            path.stem: path.read_bytes()
            for path in (tmp_path / "masks/walk").glob("f*.png")
        }
        server.start()
        until(lambda: "The server is back" in tab.text("#messages"), "the page goes on")
        assert {
            path.stem: path.read_bytes()
            for path in (tmp_path / "masks/walk").glob("f*.png")
        } == kept
        listed = {one["name"]: one for one in tab.run("main.lists.images")}
        assert listed["walk/f5"]["followed"] == 1
        assert listed["walk/f0"]["objects"] == 1

"""The annotator's page on images of many channels, on large ones, and through a crash of the server."""

import numpy as np
import pytest
import tifffile
from browser import browser, same_on_disk, until
from PIL import Image

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 1500, 2200
BANDS = 5


@pytest.fixture(scope="module")
def large():
    """(C, H, W) uint16, another ramp in each channel, no data at the top left."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = np.stack(
        [1000 * (band + 1) + (x * (band + 1) + 2 * y) % 3000 for band in range(BANDS)]
    )
    planes[:, 600:700, 900:1000] = 60000
    return planes.astype(np.uint16)


def test_a_large_raster_of_many_channels_pans_zooms_and_is_labelled(
    large, tmp_path, server_of
):
    """Native pixels by tiles; the picture is made of the file's numbers; a mask is where it was clicked."""
    path = tmp_path / "images" / "scene.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, large, planarconfig="separate", tile=(256, 256))
    server = server_of("--modality", "raster")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        assert tab.size_hw() == (HEIGHT, WIDTH)
        assert "%" in tab.text("#zoom")
        tab.page.mouse.move(*tab.place(950, 650))
        for _ in range(12):
            tab.page.mouse.wheel(0, -200)
        until(
            lambda: tab.text("#zoom") == "64 × native",
            "the wheel has turned to its end",
        )
        tab.press("g", "ArrowRight", "ArrowDown")
        until(tab.drawn, "the tiles are drawn")
        assert tab.text("#zoom") == "1 × native"
        tab.page.select_option("#mode", "single")
        tab.page.select_option("#planes select", "2")
        tab.page.fill("#low", "3000")
        tab.page.fill("#high", "6000")
        tab.page.keyboard.press("Enter")
        until(tab.drawn, "the tiles are drawn")
        for x, y in [(880, 610), (1010, 650), (1023, 767), (1024, 768), (980, 720)]:
            expected = np.clip((int(large[2, y, x]) - 3000) / 3000, 0, 1) * 255
            assert abs(tab.pixel(x + 0.5, y + 0.5)[0] - expected) <= 1
            tab.page.mouse.move(*tab.place(x + 0.5, y + 0.5))
            assert f"x {x}, y {y}" in tab.text("#value")
            assert f"{large[2, y, x]}" in tab.text("#value")
        tab.page.select_option("#mode", "index")
        a, b = (
            int(tab.page.locator("#planes select").nth(i).input_value()) for i in (0, 1)
        )
        until(tab.drawn, "the tiles are drawn")
        x, y = 1010, 650
        tab.page.mouse.move(*tab.place(x + 0.5, y + 0.5))
        first, second = float(large[a, y, x]), float(large[b, y, x])
        assert f"index {(first - second) / (first + second):.3f}" in tab.text("#value")
        tab.click(950, 650)
        assert tab.drafted()[650, 950]
        tab.saves("Enter")
        masks = until(
            lambda: [*(tmp_path / "masks").glob("scene.*")], "the mask is written"
        )
        until(
            lambda: same_on_disk(tab, masks[0]),
            "the mask on disk is the one that is shown",
        )


def test_temperatures_are_shown_in_celsius_with_inferno(tmp_path, server_of):
    """Kelvin is what the file holds, °C what people think in."""
    y, x = np.mgrid[:90, :120]
    kelvin = (290 + 20 * ((x - 60) ** 2 + (y - 45) ** 2 < 400)).astype(np.float32)
    path = tmp_path / "images" / "a.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, kelvin)
    server = server_of("--modality", "thermal", "--modality-option", "unit=K")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        tab.page.mouse.move(*tab.place(60.5, 45.5))
        assert "36.85 °C" in tab.text("#value")
        assert tab.text("#unit") == "°C"
        assert tab.page.input_value("#map") == "inferno"
        assert tab.page.input_value("#low") == "16.9"
        assert tab.pixel(5.5, 5.5) == [0, 0, 3]  # inferno's first colour


def test_a_crash_of_the_server_loses_neither_what_is_saved_nor_what_is_drawn(
    tmp_path, server_of
):
    """The page says what happened, waits, and goes on where it was."""
    from browser import folder_of

    centres = folder_of(tmp_path, ["a"])
    server = server_of("--modality", "gray")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        tab.click(*centres[0])
        tab.saves("Enter")
        tab.click(*centres[1])
        drawn = tab.drafted()
        server.kill()
        until(lambda: tab.state()["gone"], "the page sees that the server is gone")
        assert "does not answer" in tab.text("#messages")
        asked = []
        tab.page.on("request", lambda request: asked.append(request.url))
        for _ in range(4):
            tab.run("(main.app.raster.tiles.clear(), main.stage.redraw())")
        assert not [url for url in asked if "/tiles/" in url]
        tab.press("Enter")
        assert np.array_equal(tab.drafted(), drawn)
        server.start()
        until(lambda: not tab.state()["gone"], "the page sees that the server is back")
        assert tab.state()["objects"] == 1
        tab.saves("Enter")
        assert tab.state()["objects"] == 2
        assert same_on_disk(tab, tmp_path / "masks" / "a.png")
        assert np.asarray(Image.open(tmp_path / "masks" / "a.png")).any()
        tab.problems.clear()  # what the browser says of refused connections


def test_a_page_never_saves_into_another_folder(tmp_path, server_of):
    """Which is served at the same address after its own: what is drawn stays in the page."""
    from browser import folder_of

    centres = folder_of(tmp_path, ["a"])
    folder_of(tmp_path / "other", ["a"])
    server = server_of("--modality", "gray")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        tab.click(*centres[0])
        server.kill()
        server.command[3] = str(tmp_path / "other")
        server.start()
        until(
            lambda: "Another folder is served" in tab.text("#messages"),
            "the page says so",
        )
        tab.press("Enter")
        until(lambda: tab.run("!main.app.draft.accepting"), "it is refused")
        assert tab.state()["draft"]
        assert not (tmp_path / "other/masks").exists()
        server.kill()
        server.command[3] = str(tmp_path)
        server.start()
        until(lambda: not tab.state()["gone"], "the folder is back")
        tab.saves("Enter")
        assert same_on_disk(tab, tmp_path / "masks" / "a.png")
        tab.problems.clear()  # what the browser says of refused connections

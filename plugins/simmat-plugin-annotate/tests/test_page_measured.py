"""The table of measured objects and the wipe between sensors, in a browser, on two cameras that are not aligned."""

import csv
import io

import numpy as np
import pytest
import tifffile
from browser import browser, until
from PIL import Image
from simmat_plugin_measure.measured_masks import measure_masks

from simmat.plugins.loader import installed
from simmat.sensors.adapter import with_data_card

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 180, 240
DISCS = [
    (40, 50, 18, 300.0),
    (120, 50, 22, 310.0),
    (200, 50, 16, 320.0),
    (120, 130, 20, 305.0),
]
"""x, y and radius on the grid of the colour camera, and the temperature in kelvin."""
CARD = """regions = "instances"
[modality_options]
"thermal.unit" = "K"
[alignment.thermal]
reference = "rgb"
matrix = [[0.5, 0.0, 5.0], [0.0, 0.5, 4.0], [0.0, 0.0, 1.0]]
reference_size = [240, 180]
size = [130, 100]
"""


def scene(x, y):
    """Return colours and temperatures at places on the grid of the colour camera."""
    colours = np.full((*x.shape, 3), 60.0)
    kelvin = np.full(x.shape, 290.0)
    for cx, cy, radius, temperature in DISCS:
        inside = (x - cx) ** 2 + (y - cy) ** 2 <= radius**2
        colours[inside] = (220, 180, 90)
        kelvin[inside] = temperature
    return colours.astype(np.uint8), kelvin.astype(np.float32)


@pytest.fixture
def pairs(tmp_path):
    """Two images of `rgb+thermal`, of which the thermal camera has another size and place; no data at its corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    row, column = np.mgrid[:100, :130].astype(float)
    colours, _ = scene(x, y)
    _, kelvin = scene((column - 5) / 0.5, (row - 4) / 0.5)
    for name in ("a", "b"):
        for source in ("rgb", "thermal"):
            (tmp_path / "images" / source).mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours).save(tmp_path / f"images/rgb/{name}.png")
        tifffile.imwrite(tmp_path / f"images/thermal/{name}.tif", kelvin)
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path


@pytest.fixture
def opened(pairs, server_of):
    """The page at the first image, with three discs labelled in the order of their temperature."""
    server = server_of("--modality", "rgb+thermal")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        for x, y, *_ in DISCS[:3]:
            tab.click(x, y)
            tab.saves("Enter")
        yield tab


def cells(tab):
    """Return the rows that are shown, as texts, when they are measured."""
    rows = tab.page.locator("#measures-table tbody tr[data-id]")
    until(
        lambda: (
            tab.page.locator("#measures-table tbody tr.old").count() == 0
            and "…" not in tab.text("#measures-table tbody")
        ),
        "all rows are measured",
    )
    return [row.locator("td").all_inner_texts() for row in rows.all()]


def marked(tab):
    """Return the id of the marked row."""
    return tab.page.locator("#measures-table tr[aria-selected=true]").get_attribute(
        "data-id"
    )


def table_of(pairs, out):
    """Return the table of the mask on disk by `simmat measure`."""
    card = {"modality_options": {"thermal.unit": "K"}}
    card |= {
        "alignment": {
            "thermal": {
                "reference": "rgb",
                "matrix": [[0.5, 0, 5], [0, 0.5, 4], [0, 0, 1]],
            }
        }
    }
    sensor = with_data_card(installed().modality("rgb+thermal", None), card)
    files = {
        "rgb": pairs / "images/rgb/a.png",
        "thermal": pairs / "images/thermal/a.tif",
    }
    mask = pairs / "masks/a.png"
    measure_masks(sensor, [files], [mask], out, note=lambda text: None)
    return out.read_text()


def test_the_table_follows_edits_and_the_selection(opened, pairs):
    """What is marked in the image is marked in the table, and a corrected mask has other numbers."""
    tab = opened
    tab.press("q")
    assert tab.page.input_value("#measured-channel") == "3"
    first = cells(tab)
    assert [row[0] for row in first] == ["3", "2", "1"]
    assert float(first[2][3]) == pytest.approx(300, abs=1)
    tab.page.click("#measures-table th:nth-child(4) button")
    assert [row[0] for row in cells(tab)] == ["3", "2", "1"]
    tab.page.click("#measures-table th:nth-child(4) button")
    assert [row[0] for row in cells(tab)] == ["1", "2", "3"]
    assert (
        tab.page.get_attribute("#measures-table th:nth-child(4)", "aria-sort")
        == "ascending"
    )

    tab.page.click("#measures-table tr[data-id='3']")
    assert tab.state()["selected"] == 3
    assert marked(tab) == "3"
    middle = tab.run("main.stage.view.middle")
    assert middle == pytest.approx({"x": DISCS[2][0], "y": DISCS[2][1]}, abs=4)
    tab.press("ArrowUp")
    until(lambda: tab.state()["selected"] == 2, "the row above is selected")
    tab.press("Home")
    until(lambda: marked(tab) == "1", "the first row is selected")
    tab.press("Escape", "f")
    tab.page.keyboard.down("Shift")
    tab.click(*DISCS[1][:2])
    tab.page.keyboard.up("Shift")
    assert marked(tab) == "2"

    area, mean = cells(tab)[1][2:4]
    tab.press("b")
    tab.drag([(100, 80), (140, 80)])
    tab.saves("Enter")
    changed = cells(tab)[1]
    assert changed[0] == "2"
    assert int(changed[2]) > int(area)
    assert float(changed[3]) < float(mean)
    tab.press("c")
    tab.saves("Control+z")
    assert cells(tab)[1][2:4] == [area, mean]
    tab.saves("Delete")
    assert [row[0] for row in cells(tab)] == ["1", "3"]


def test_the_saved_and_the_copied_table_are_that_of_simmat_measure(
    opened, pairs, tmp_path
):
    """The same columns and numbers, byte by byte, for the mask on the grid of the first camera."""
    tab = opened
    tab.press("q")
    cells(tab)
    expected = table_of(pairs, tmp_path / "expected.csv")
    with tab.page.expect_download() as download:
        tab.page.click("#save-table")
    assert download.value.suggested_filename == "a.csv"
    download.value.save_as(tmp_path / "saved.csv")
    assert (tmp_path / "saved.csv").read_text() == expected
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.click("#copy-table")
    until(
        lambda: tab.page.evaluate("navigator.clipboard.readText()") == expected,
        "the table is copied",
    )
    shown = {row[0]: row for row in cells(tab)}
    for row in csv.DictReader(io.StringIO(expected)):
        numbers = [float(text) for text in shown[row["label"]][3:]]
        names = ("mean", "min", "max", "median", "contrast")
        wanted = [float(row[f"intensity_{name}-thermal [K]"]) for name in names]
        assert numbers == pytest.approx(wanted, abs=0.006)
    assert np.asarray(Image.open(pairs / "masks/a.png")).shape == (HEIGHT, WIDTH)


def test_another_image_and_another_channel_have_their_own_numbers(opened):
    """Nothing of what was shown before may stay."""
    tab = opened
    tab.press("q")
    thermal = cells(tab)
    tab.page.select_option("#measured-channel", "0")
    red = cells(tab)
    assert "[count]" in tab.text("#measures-table thead")
    assert [row[:3] for row in red] == [row[:3] for row in thermal]
    assert float(red[0][3]) == pytest.approx(220, abs=10)
    tab.open("b")
    assert tab.page.locator("#measures-table tbody tr[data-id]").count() == 0
    assert "No object yet" in tab.text("#measures-text")
    assert tab.page.input_value("#measured-channel") == "0"
    tab.press("q")
    assert not tab.page.is_visible("#measures")


def test_a_wipe_shows_the_other_sensor_right_of_the_pointer(opened):
    """What is hot is seen in the colours of the scene, and the other way round."""
    tab = opened
    tab.press("h")
    x, y = DISCS[1][:2]
    background = tab.pixel(80, 100)
    tab.press("w")
    assert tab.page.locator("#wipe option:checked").inner_text() == "thermal"
    tab.page.mouse.move(*tab.place(x, 100))
    until(tab.drawn, "both views are drawn")
    assert tab.pixel(x - 10, y) == tab.pixel(DISCS[0][0], DISCS[0][1])
    assert tab.pixel(x + 10, y) != tab.pixel(x - 10, y)
    assert tab.pixel(80, 100) == background != tab.pixel(160, 100)
    assert "°C" in tab.text("#value")
    assert "red" in tab.text("#value")
    tab.page.mouse.move(*tab.place(30, 100))
    assert tab.pixel(80, 100) == tab.pixel(160, 100) != background
    tab.open("b")
    assert tab.page.locator("#wipe option:checked").inner_text() == "thermal"
    tab.press("w")
    assert tab.pixel(80, 100) == background
    assert "°C" not in tab.text("#value")


def test_of_many_objects_those_in_view_are_measured_and_all_when_sorted(
    tmp_path, server_of
):
    """A page with 10,000 rows would not scroll, and measuring them takes half a minute."""
    mask = np.zeros((120, 120), np.uint16)
    image = np.zeros((120, 120), np.uint8)
    for number in range(900):
        row, column = divmod(number, 30)
        place = np.s_[4 * row : 4 * row + 3, 4 * column : 4 * column + 3]
        mask[place] = number + 1
        image[place] = (number * 7) % 250
    for folder, plane in (("images", image), ("masks", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(plane).save(tmp_path / folder / "a.png")
    (tmp_path / "card.toml").write_text('regions = "instances"\n')
    server = server_of("--modality", "gray")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        tab.press("q")
        rows = cells(tab)
        assert rows[0][0] == "900"
        assert len(rows) < 30
        assert tab.run("main.table.rows.size") == len(rows)
        tab.page.click("#measures-table th:nth-child(4) button")
        until(lambda: tab.run("main.table.rows.size") == 900, "all are measured")
        means = [float(row[3]) for row in cells(tab)]
        assert means[0] == image.max()
        assert means == sorted(means, reverse=True)
        tab.page.evaluate("document.getElementById('measures-rows').scrollTop = 1e6")
        until(lambda: float(cells(tab)[-1][3]) == 0, "the last row is in view")
        tab.page.keyboard.down("Shift")
        tab.click(1, 1)
        tab.page.keyboard.up("Shift")
        assert marked(tab) == "1"
        assert tab.page.locator("#measures-table tr[aria-selected=true]").is_visible()

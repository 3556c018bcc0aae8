"""The page of an exported model in a browser: what it shows is what it saves, and nothing is lost."""

from __future__ import annotations

import csv
import json
import zipfile

import numpy as np
import pytest
from mock_page import (
    HEIGHT,
    WIDTH,
    disc,
    opened_page,
)
from PIL import Image

import simmat

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=document.title='owned'>.png"


@pytest.fixture
def page(site):
    """The page of a thermal model without classes."""
    with opened_page(*site, "thermal") as shown:
        yield shown


@pytest.fixture
def class_page(site):
    """The page of a multispectral model with two classes."""
    with opened_page(*site, "classes") as shown:
        yield shown


def test_the_start_says_what_the_model_is(class_page):
    """Somebody opens the file and knows nothing of it."""
    assert "crop and weed" in class_page.text("#sentence")
    assert "nir" in class_page.text("#sentence")
    assert ".tif" in class_page.text("#start-accepts")
    assert "Nothing is sent" in class_page.text("footer")
    class_page.tab.click("#card-button")
    assert "Limits" in class_page.text("#card")
    assert "MIT" in class_page.tab.locator("#card-notices").text_content()


def test_a_click_gives_a_mask_that_becomes_an_object(page):
    """The whole point."""
    page.open("a.png")
    circle = page.circles()[4]
    page.click(*circle[:2])
    assert np.array_equal(page.draft(), disc(circle))
    assert "0.93" in page.text("#prompt-text")
    assert page.objects() == {}
    page.press("Enter")
    assert np.array_equal(page.objects()[1], disc(circle))
    assert page.draft() is None


def test_a_right_click_and_shift_take_away(page):
    """The two other ways to say what is not meant, and the mode for those with one button."""
    page.open("a.png")
    one, other, third = page.circles()[:3]
    page.drag((one[0] - 60, one[1] - 60), (third[0] + 60, third[1] + 60))
    assert np.array_equal(page.draft(), disc(one) | disc(other) | disc(third))
    page.click(*other[:2], button="right")
    assert np.array_equal(page.draft(), disc(one) | disc(third))
    page.press("x")
    page.click(*third[:2])
    assert np.array_equal(page.draft(), disc(one))


def test_undo_and_redo_go_through_clicks_and_objects(page):
    """An error is one key away from never having been made."""
    page.open("a.png")
    one, other = page.circles()[:2]
    page.click(*one[:2])
    page.click(*other[:2])
    page.press("Enter", "Control+z")
    assert page.objects() == {}
    page.press("Control+z")
    assert np.array_equal(page.draft(), disc(one))
    page.press("Control+y", "Control+Shift+z")
    assert np.array_equal(page.objects()[1], disc(one) | disc(other))


def test_an_object_is_corrected_by_a_click(page):
    """Objects that were found need a correction here and there."""
    page.open("a.png")
    one, other = page.circles()[:2]
    page.click(*one[:2])
    page.press("Enter", "v")
    page.click(*one[:2])
    assert page.run("workspace.selected") == 1
    page.press("c")
    page.click(*other[:2])
    page.press("Enter")
    assert list(page.objects()) == [1]
    assert np.array_equal(page.objects()[1], disc(one) | disc(other))


def test_brush_and_eraser_change_pixels(page):
    """Where the model does not understand, a hand does; what was painted has no score of the model."""
    page.open("a.png")
    page.run("workspace.set({ brushRadius: 8 })")
    page.press("b")
    page.drag((100, 240), (200, 240))
    painted = page.draft()
    assert painted[240, 95:205].all()
    assert painted.sum() == pytest.approx(100 * 16 + np.pi * 64, rel=0.03)
    page.press("e")
    page.drag((150, 200), (150, 280))
    assert not page.draft()[240, 144:156].any()
    page.press("Enter")
    assert page.tab.locator("#table tbody td").nth(1).inner_text() == "painted"
    page.press("Control+z", "Control+z")
    assert np.array_equal(page.draft(), painted)


def test_a_click_while_the_model_works_is_not_forgotten(page):
    """People click faster than a model answers."""
    page.open("a.png")
    circles = page.circles()[:4]
    for circle in circles:
        page.run("workspace.click(argument, true)", {"x": circle[0], "y": circle[1]})
    page.until("!workspace.labels.draft.isWaiting")
    assert np.array_equal(page.draft(), np.any([disc(one) for one in circles], axis=0))


def test_everything_is_found_and_what_is_marked_stays(page):
    """An object that the user accepted is not found a second time."""
    page.open("a.png")
    circles = page.circles()
    page.click(*circles[8][:2])
    page.press("Enter")
    page.find_everything()
    objects = page.objects()
    assert sorted(objects) == list(range(1, 10))
    assert np.array_equal(objects[1], disc(circles[8]))
    assert np.array_equal(objects[2], disc(circles[0]))


def test_the_least_score_hides_what_was_found_and_saves_no_more(page, tmp_path):
    """Doubtful objects are dropped together; what a person clicked stays, and the slider brings the rest back."""
    page.open("a.png")
    page.find_everything()
    page.click(*page.circles()[8][:2])
    page.press("Enter")
    page.tab.locator("#least-score").fill("0.85")
    page.until("true")
    assert page.text("#least-score-text") == "0.85"
    assert "how well a mask fits" in page.text("#side-panel")
    numbers = page.tab.locator("#table tbody tr").count()
    assert numbers == 4
    assert "6 below the least score" in page.text("#table-text")
    document = json.loads(page.save("#save-coco", tmp_path).read_text())
    assert [one["label"] for one in document["annotations"]] == [1, 2, 3, 10]
    page.tab.locator("#least-score").fill("0")
    page.until("true")
    assert page.tab.locator("#table tbody tr").count() == 10


def test_finding_can_be_cancelled(page):
    """A large image takes minutes."""
    page.open("a.png")
    page.run("mock.engine.findMs = 1000")
    page.tab.click("#everything")
    page.until("workspace.task?.share > 0")
    page.tab.click("#task-cancel")
    page.until("!workspace.task")
    page.run("mock.engine.findMs = 1")
    assert page.objects() == {}
    assert page.tab.locator(".message").count() == 0
    page.find_everything()
    assert len(page.objects()) == 9


def test_the_table_follows_the_selection_and_selects(page):
    """Which row is which object?"""
    page.open("a.png")
    page.find_everything()
    third = page.circles()[2]
    page.press("v")
    page.click(*third[:2])
    selected = page.tab.locator("#table tr[aria-selected=true]")
    assert selected.get_attribute("data-number") == "3"
    page.tab.locator("#table").focus()
    page.press("ArrowDown")
    assert page.run("workspace.selected") == 4
    page.tab.click("#table th button:text-is('Mean [°C]')")
    page.until("true")
    means = page.tab.locator("#table tbody td:nth-child(5)").all_inner_texts()
    assert means == sorted(means, key=float, reverse=True)
    assert 15 < float(means[0]) < 40  # degrees, where the model has kelvin


def test_the_value_under_the_pointer_has_a_unit(page):
    """Numbers, not only grey."""
    page.open("a.png")
    page.tab.mouse.move(*page.on_screen(300.5, 100.5))
    page.until("true")
    value = page.run("workspace.opened.planes[0][100 * 640 + 300]")
    shown = page.text("#readout")
    assert "300, 100" in shown
    assert f"{value - 273.15:.1f}" in shown
    assert "°C" in shown
    page.tab.mouse.move(*page.on_screen(10.5, 5.5))
    page.until("true")
    assert "not measured" in page.text("#readout")


def test_the_value_of_another_image_does_not_stay(page):
    """The keys move the cross, which is in the middle again after another image was opened."""
    page.open("a.png", "b.png")
    page.tab.locator("#canvas").focus()
    page.press("ArrowRight")
    assert "°C" in page.text("#readout")
    page.press("PageDown")
    page.until("workspace.opened?.name === 'b.png'")
    assert page.tab.locator("#readout").is_hidden()


def test_saved_masks_are_the_objects(page, tmp_path):
    """Exact, in 16 bits."""
    page.open("a.png")
    page.find_everything()
    page.press("v")
    page.click(*page.circles()[1][:2])
    page.press("Delete")
    file = page.save("#save-masks", tmp_path)
    assert file.name == "a_objects.png"
    with Image.open(file) as image:
        assert image.mode == "I;16"
        labels = np.asarray(image)
    expected = np.zeros((HEIGHT, WIDTH), np.uint16)
    for number, pixels in page.objects().items():
        expected[pixels] = number
    assert np.array_equal(labels, expected)
    assert 2 not in labels


def test_saved_coco_is_read_by_pycocotools_and_simmat(class_page, tmp_path):
    """The masks, with their classes and numbers, pixel by pixel."""
    mask_api = pytest.importorskip("pycocotools.mask")
    class_page.open("a.tif")
    class_page.find_everything()
    file = class_page.save("#save-coco", tmp_path)
    document = json.loads(file.read_text())
    assert document["images"] == [
        {"id": 1, "file_name": "a.tif", "height": HEIGHT, "width": WIDTH}
    ]
    assert document["categories"] == [
        {"id": 1, "name": "crop"},
        {"id": 2, "name": "weed"},
    ]
    objects = class_page.objects()
    assert len(document["annotations"]) == len(objects) == 9
    for annotation, pixels in zip(
        document["annotations"], objects.values(), strict=True
    ):
        assert np.array_equal(
            mask_api.decode(annotation["segmentation"]), pixels.astype(np.uint8)
        )
        assert annotation["area"] == pixels.sum()
        box = mask_api.toBbox(annotation["segmentation"]).tolist()
        assert annotation["bbox"] == box
        assert annotation["attributes"]["area"] == pixels.sum()


def test_run_lengths_at_the_edges_of_an_image(page):
    """A run goes on from one column to the next where a mask touches both edges."""
    mask_api = pytest.importorskip("pycocotools.mask")
    page.open("a.png")
    page.run("workspace.set({ brushRadius: 40 })")
    page.press("b")
    page.drag((20, 0), (20, 479), (5, 240), (638, 470))
    painted = page.draft()
    assert painted[:, 20].all()
    assert painted[-1, -1]
    page.press("Enter")
    script = (
        "JSON.stringify(mock.cocoDocument([{ fileName: 'a', size: workspace.opened, "
        "objects: workspace.labels.objects, measurementsOf: () => ({}) }], new Map()))"
    )
    text = page.run(script)
    (annotation,) = json.loads(text)["annotations"]
    assert np.array_equal(mask_api.decode(annotation["segmentation"]), painted)
    assert annotation["segmentation"] == _encoded(mask_api, painted)
    assert "score" not in annotation


def _encoded(mask_api, pixels):
    code = mask_api.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


def test_simmat_trains_on_what_the_page_saved(class_page, tmp_path):
    """The way back: labels of a colleague become a data set."""
    pytest.importorskip("pycocotools")
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(folder / name)
    class_page.open("a.tif", "b.tif")
    class_page.tab.click("#find-everywhere")
    class_page.until(
        "workspace.images.every((entry) => entry.isSearched) && !workspace.task"
    )
    class_page.tab.select_option("#scope", "all")
    file = class_page.save("#save-coco", tmp_path)
    file.rename(tmp_path / "annotations.json")
    dataset = simmat.open_dataset(tmp_path, "gray", regions="instances")
    assert len(dataset) == 2
    sample = dataset[1]
    assert sample["objects"].max() == 9
    one, other = class_page.circles()[:2]
    assert (sample["classes"][disc(one)] == 1).all()
    assert (sample["classes"][disc(other)] == 2).all()


def test_no_name_is_a_formula_in_the_saved_table(page):
    """A spreadsheet runs what begins with =."""
    script = (
        "mock.tableCsv([{ name: argument, columns: [], rows: new Map(), "
        "objects: [{ number: 1, mask: { score: 0.9, classId: 1 } }] }], new Map([[1, argument]]))"
    )
    for name in ("=1+1", "+1", "-1", "@x", "\t=1"):
        (_, row) = page.run(script, name).splitlines()
        assert row == f"./{name},1,1,'{name},0.9"


def test_the_saved_table_has_the_columns_of_simmat_measure(class_page, tmp_path):
    """One table for what was found here and there."""
    class_page.open("a.tif")
    class_page.find_everything()
    file = class_page.save("#save-table", tmp_path)
    assert file.name == "objects.csv"
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:6] == [
        "image",
        "label",
        "class",
        "class_name",
        "score",
        "area",
    ]
    assert "intensity_mean-nir [1]" in rows[0]
    assert rows[1]["image"] == "a"
    assert rows[1]["label"] == "2"
    assert rows[1]["class_name"] == "weed"
    assert float(rows[1]["score"]) == 0.93
    assert int(rows[1]["area"]) == class_page.objects()[2].sum()


def test_class_map_is_shown_and_saved(class_page, tmp_path):
    """A model with classes knows them for each pixel."""
    class_page.open("a.tif")
    class_page.tab.click("#class-map")
    class_page.until("workspace.current.classMap && !workspace.task")
    file = class_page.save("#save-classes", tmp_path)
    assert file.name == "a_classes.png"
    labels = np.asarray(Image.open(file))
    one, other = class_page.circles()[:2]
    assert (labels[disc(one)] == 1).all()
    assert (labels[disc(other)] == 2).all()
    assert labels.max() == 2
    class_page.tab.click("#class-map")
    assert class_page.run("workspace.showsClassMap") is False


def test_a_class_is_chosen_by_key_and_list(class_page):
    """The model's class is a proposal."""
    class_page.open("a.tif")
    class_page.click(*class_page.circles()[0][:2])
    assert class_page.tab.locator("#prompt-class").input_value() == "1"
    class_page.press("2", "Enter")
    assert class_page.run("workspace.labels.objects[0].mask.classId") == 2
    class_page.press("v")
    class_page.click(*class_page.circles()[0][:2])
    class_page.tab.select_option("#prompt-class", "none")
    assert class_page.run("workspace.labels.objects[0].mask.classId ?? null") is None


def test_results_of_500_images_are_kept(page, tmp_path):
    """Dropped at once, opened one at a time, saved together."""
    names = [f"image_{number:03}.png" for number in range(500)]
    page.open(*names)
    assert page.tab.locator("#image-list li").count() == 500
    page.find_everything()
    page.tab.click("#image-list button:has-text('image_250.png')")
    page.until("workspace.opened?.name === 'image_250.png'")
    page.click(*page.circles()[0][:2])
    page.press("Enter", "PageDown")
    page.until("workspace.opened?.name === 'image_251.png'")
    page.click(*page.circles()[0][:2])
    page.press("PageUp")
    page.until("workspace.opened?.name === 'image_250.png'")
    assert np.array_equal(page.objects()[1], disc(page.circles()[0]))
    page.press("PageDown")
    page.until("workspace.opened?.name === 'image_251.png'")
    assert np.array_equal(
        page.draft(), disc(page.circles()[0])
    )  # not accepted, not lost

    page.tab.select_option("#scope", "all")
    with zipfile.ZipFile(page.save("#save-all", tmp_path)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "image_000_objects.png",
            "image_250_objects.png",
            "coco.json",
            "objects.csv",
        ]
        table = archive.read("objects.csv").decode()
    assert len(table.splitlines()) == 1 + 9 + 1


def test_equal_names_do_not_overwrite_each_other(page, tmp_path):
    """Cameras begin at 1 on each card."""
    page.open("a.png")
    page.find_everything()
    page.open("a.png")
    page.until("workspace.images.length === 2 && workspace.opened && !workspace.task")
    page.find_everything()
    page.tab.select_option("#scope", "all")
    with zipfile.ZipFile(page.save("#save-masks", tmp_path)) as archive:
        assert archive.namelist() == ["a_objects.png", "a_2_objects.png"]


def test_an_error_keeps_the_work(page):
    """A broken file among good ones, and a file of another kind."""
    page.open("a.png")
    page.find_everything()
    page.choose("broken.png", "notes.txt")
    page.until("workspace.current.error")
    assert "copied completely" in page.text("#start-error")
    assert "notes.txt" in page.text("#messages")
    assert "failed" in page.text("#image-list")
    page.press("PageUp")
    page.until("workspace.opened?.name === 'a.png'")
    assert len(page.objects()) == 9
    assert page.run("workspace.isMeasured")
    page.click(320, 20)  # where the engine finds nothing
    assert "Draw a box" in page.text("#messages")
    assert len(page.objects()) == 9


SEEN = """(() => {
  const box = document.querySelector(".message p").getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return top?.closest(".message") !== null;
})()"""
"""Whether a message is seen, and not below something else."""


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_a_file_that_is_left_out_is_said_on_the_first_screen(page, size):
    """Nothing seemed to happen: the message was below the screen that asks for images."""
    width, height = size
    page.tab.set_viewport_size({"width": width, "height": height})
    page.choose("report.pdf")
    page.until("document.querySelector('.message')")
    assert "report.pdf" in page.text("#messages")
    assert page.run(SEEN)


def test_what_was_said_goes_when_other_files_come(page):
    """A message of files that are in the list by now would be wrong."""
    page.choose("report.pdf")
    page.until("document.querySelector('.message')")
    page.open("a.png")
    assert page.text("#messages") == ""


def test_the_search_of_all_images_ends_with_a_sentence(page):
    """What was found, and what was left out."""
    page.open("a.png")
    page.choose("broken.png", "c.png")
    page.until("!workspace.task && workspace.images.length === 3")
    page.tab.click("#find-everywhere")
    page.until("workspace.images.every((one) => one.isSearched || one.error)")
    page.until("document.querySelector('.message.note')")
    assert "18 objects in 2 images" in page.text("#messages")


def test_an_object_that_is_marked_twice_is_said(page):
    """Two masks of one udder would count it twice."""
    page.open("a.png")
    place = page.circles()[0][:2]
    for _ in range(2):
        page.click(*place)
        page.press("Enter")
        page.press("Escape")
    assert "almost the mask of object 1" in page.text("#messages")


WOULD_WARN = "!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"


def test_leaving_warns_of_what_was_not_saved(page, tmp_path):
    """A reload by accident takes an hour of work; a warning after all was saved is one that nobody reads again."""
    page.open("a.png")
    assert not page.run(WOULD_WARN)
    page.click(*page.circles()[0][:2])
    page.press("Enter")
    page.save("#save-table", tmp_path)  # has no masks
    assert page.run(WOULD_WARN)
    page.save("#save-all", tmp_path)
    assert not page.run(WOULD_WARN)
    page.press("Control+z")
    page.click(*page.circles()[1][:2])
    page.press("Enter")
    assert page.run(WOULD_WARN)


def test_a_warning_offers_what_repairs_it(page):
    """The contract of the model's inputs: said, with the answer beside it."""
    page.open("warm.png")
    assert "celsius" in page.text("#warnings")
    page.click(*page.circles()[0][:2])
    page.press("Enter")
    page.tab.select_option("#warning-options select", "celsius")
    page.until("workspace.opened && !workspace.task")
    assert page.tab.locator("#warnings").is_hidden()
    assert page.run("workspace.options.unit") == "celsius"
    assert len(page.objects()) == 1


def test_names_of_files_are_text(page):
    """A page that opens files of strangers."""
    page.open(HOSTILE, "b.png")
    assert page.tab.locator("#image-list .label").first.inner_text() == HOSTILE
    assert page.tab.title() != "owned"


def test_all_is_done_with_keys_alone(class_page):
    """Who has no mouse opens, clicks, accepts, selects and corrects as well."""
    class_page.open("a.tif")
    tab = class_page.tab
    tab.locator("#canvas").focus()
    x, y, _ = class_page.circles()[4]
    middle = class_page.run("stage.view.middle")
    zoom = class_page.run("stage.view.zoom")
    for key, distance in (
        ("ArrowRight", x - middle["x"]),
        ("ArrowDown", y - middle["y"]),
    ):
        opposite = {"ArrowRight": "ArrowLeft", "ArrowDown": "ArrowUp"}[key]
        for _ in range(round(abs(distance) * zoom / 4)):
            tab.keyboard.press(f"Shift+{key if distance > 0 else opposite}")
    class_page.press("p")
    class_page.until("!workspace.labels.draft?.isWaiting")
    assert np.array_equal(class_page.draft(), disc(class_page.circles()[4]))
    class_page.press("Enter")
    for _ in range(60):  # with Tab to the table
        if tab.evaluate("document.activeElement.id") == "table":
            break
        tab.keyboard.press("Tab")
    class_page.press("ArrowDown")
    assert class_page.run("workspace.selected") == 1
    class_page.press("Delete")
    assert class_page.objects() == {}
    class_page.press("?")
    assert tab.locator("#help").is_visible()
    class_page.press("Escape")
    assert tab.locator("#help").is_hidden()


def test_zoom_keeps_the_place_under_the_pointer(page):
    """The wheel goes where one looks."""
    page.open("a.png")
    before = page.run("stage.view.zoom")
    place = page.on_screen(500, 100)
    page.tab.mouse.move(*place)
    page.tab.mouse.wheel(0, -600)
    page.until("true")
    assert page.run("stage.view.zoom") > 1.5 * before
    assert page.on_screen(500, 100) == pytest.approx(place, abs=1)
    page.press("f")
    assert page.run("stage.view.toScreen({ x: 0, y: 0 }).x") > 0


def test_touch_marks_and_zooms(site):
    """A tablet in the field: tap, long press, a box, two fingers."""
    options = {"viewport": {"width": 768, "height": 1024}, "has_touch": True}
    with opened_page(*site, "thermal", **options, is_mobile=True) as page:
        page.open("a.png")
        one, other = page.circles()[:2]
        page.tab.touchscreen.tap(*page.on_screen(*one[:2]))
        page.until("workspace.labels.draft && !workspace.labels.draft.isWaiting")
        assert np.array_equal(page.draft(), disc(one))
        touch(page, [page.on_screen(*other[:2])], hold_ms=700)
        page.until("!workspace.labels.draft.isWaiting")
        assert page.run("workspace.labels.draft.prompt.points[1].onObject") is False
        zoom = page.run("stage.view.zoom")
        points = len(page.run("workspace.labels.draft.prompt.points"))
        pinch(page, page.on_screen(320, 240))
        assert page.run("stage.view.zoom") > 1.5 * zoom
        assert len(page.run("workspace.labels.draft.prompt.points")) == points
        buttons = page.tab.locator(
            "#toolbar button:visible, #prompt-bar button:visible"
        )
        for box in [button.bounding_box() for button in buttons.all()]:
            assert min(box["width"], box["height"]) >= 43.5


def touch(page, places, hold_ms):
    """Hold fingers on places of the window."""
    session = page.tab.context.new_cdp_session(page.tab)
    points = [{"x": x, "y": y} for x, y in places]
    session.send(
        "Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points}
    )
    page.tab.wait_for_timeout(hold_ms)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def pinch(page, middle):
    """Move two fingers apart from 60 to 200 pixels."""
    session = page.tab.context.new_cdp_session(page.tab)
    x, y = middle
    for kind, distance in [
        ("touchStart", 60),
        *(("touchMove", 60 + 20 * step) for step in range(1, 8)),
    ]:
        points = [
            {"x": x - distance / 2, "y": y, "id": 0},
            {"x": x + distance / 2, "y": y, "id": 1},
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.until("true")


def test_a_large_image_is_sharp_where_one_looks(page):
    """16 million pixels are drawn reduced, and whole where they are looked at closely."""
    page.open("large.png")
    size = page.run("[workspace.opened.width, workspace.opened.height]")
    assert size == [4000, 4000]
    page.run("stage.move((view) => view.zoomBy(4 / view.zoom))")
    page.until("true")
    assert page.run("stage.view.zoom") == pytest.approx(4)
    middle = page.run("stage.view.middle")
    x, y = int(middle["x"]), int(middle["y"])
    low, high = page.run("workspace.display.limits[0]")
    value = page.run(
        "workspace.opened.planes[0][argument[1] * 4000 + argument[0]]", [x, y]
    )
    level = round(255 * min(1, max(0, (value - low) / (high - low))))
    at = page.run("stage.view.toScreen(argument)", {"x": x + 0.5, "y": y + 0.5})
    drawn = page.run(
        "[...stage.canvas.getContext('2d').getImageData(argument.x, argument.y, 1, 1).data]",
        at,
    )
    assert drawn == [level, level, level, 255]

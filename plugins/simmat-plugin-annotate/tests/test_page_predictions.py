"""Predictions that are corrected in the page."""

import json

import pytest
from browser import browser, folder_of, until

from simmat.data.predicted import read_predicted

pytestmark = pytest.mark.slow


def predictions(path, places=(10, 40)):
    """A COCO file with a square of a model at each place (x) of the image a."""
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 96, "width": 96}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {
                "id": n,
                "image_id": 1,
                "category_id": 1,
                "score": 0.5,
                "segmentation": [[x, 9, x + 9, 9, x + 9, 18, x, 18]],
            }
            for n, x in enumerate(places)
        ],
    }
    path.write_text(json.dumps(document))
    return path


def test_what_a_model_found_is_marked_until_a_person_draws_or_confirms_it(
    tmp_path, server_of
):
    """The page says which objects they are, and undo brings the mark back."""
    folder_of(tmp_path, ["a", "b"])
    path = predictions(tmp_path.parent / f"{tmp_path.name}-coco.json", (10, 40, 70))
    server = server_of(
        "--modality", "gray", "--regions", "instances", "--predictions", str(path)
    )
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)

        def of_model():
            found = "[...main.app.labels.objects.values()].map((one) => one.predicted)"
            return sum(tab.run(found))

        tab.press("s")
        until(lambda: tab.state()["walk"] == [0, 3], "they are suggested")
        tab.saves("Enter")
        assert tab.page.locator("#origin").is_visible()
        assert "1 of 1 found by a model" in tab.text("#origin")
        until(lambda: "● 1 ◇" in tab.text("#images"), "the list says it")
        assert "◇" in tab.text("#objects")
        tab.click(44, 13)
        tab.saves("Enter")
        assert of_model() == 1  # the second one was corrected by a click
        tab.saves("Shift+Enter")
        assert tab.state()["objects"] == 3
        assert of_model() == 2
        assert read_predicted(tmp_path) == {"a"}
        tab.run("main.stage.act.select({ x: 72, y: 12 })")
        tab.press("Shift+O", "Enter")
        until(lambda: tab.state()["draft"], "the outline is a mask again")
        assert tab.run("main.app.draft.state.predicted")  # nobody has corrected it
        tab.press("Enter")
        until(lambda: not tab.state()["draft"], "it is accepted")
        assert of_model() == 2
        tab.press("Shift+O")
        corner = tab.run("main.app.corners[0]")
        tab.drag([(corner["x"], corner["y"]), (80, 25)])
        tab.press("Enter")
        tab.saves("Enter")
        assert of_model() == 1
        tab.run("main.stage.act.select({ x: 72, y: 12 })")
        assert "1 of 3 found by a model" in tab.text("#origin")
        tab.saves("v")
        assert of_model() == 0
        assert not tab.page.locator("#origin").is_visible()
        assert not (tmp_path / "predicted.csv").exists()
        until(lambda: "● 3 ◇" not in tab.text("#images"), "the list says it")
        tab.press("v")
        until(lambda: "Nothing to confirm" in tab.text("#messages"), "it says so")
        tab.saves("Control+z")
        assert of_model() == 1
        assert read_predicted(tmp_path) == {"a"}
        tab.saves("Control+y")
        assert of_model() == 0
        assert read_predicted(tmp_path) == set()
        tab.saves("Control+z")
        tab.page.select_option("#filter-state", "model")
        assert "a" in tab.text("#images .label")
        assert "b" not in tab.text("#images .label")


def test_a_stroke_of_the_brush_on_a_narrow_screen_makes_an_object_ones_own(
    tmp_path, server_of
):
    """Taken back before it is saved, the object is the model's again; a phone shows the page without scrolling."""
    folder_of(tmp_path, ["a", "b", "c"])
    path = predictions(tmp_path.parent / f"{tmp_path.name}-coco.json", (10,))
    server = server_of(
        "--modality", "gray", "--regions", "instances", "--predictions", str(path)
    )
    with browser(width=400, height=800) as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
        until(lambda: "◇ 1" in tab.text("#images"), "the list shows the prediction")
        tab.page.locator("#canvas").focus()
        tab.press("s")
        until(lambda: tab.state()["walk"] == [0, 1], "it is suggested")
        tab.press("b")
        tab.drag([(12, 12), (14, 14)])
        predicted = "main.app.draft.state.predicted"
        assert tab.run(predicted) is False
        tab.press("Control+z")
        assert tab.run(predicted) is True
        tab.press("Control+y")
        tab.saves("Enter")
        assert read_predicted(tmp_path) == set()
        assert tab.page.evaluate("window.scrollX") == 0
        tab.page.click("#train")
        until(lambda: tab.text("#split-hint"), "the dialog is open")
        assert "◇" not in tab.text("#split-hint")

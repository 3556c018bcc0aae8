"""Predictions that are corrected in the page."""

import json

import pytest
from browser import browser, folder_of, until

pytestmark = pytest.mark.slow


def test_predictions_are_accepted_in_the_page_on_a_narrow_screen(tmp_path, server_of):
    """Each with a key, as the model's own; a phone or a half of a screen shows the page without scrolling sideways."""
    folder_of(tmp_path, ["a", "b"])
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
            for n, x in enumerate((10, 40))
        ],
    }
    path = tmp_path.parent / f"{tmp_path.name}-coco.json"
    path.write_text(json.dumps(document))
    server = server_of(
        "--modality", "gray", "--regions", "instances", "--predictions", str(path)
    )
    with browser(width=400, height=800) as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
        until(lambda: "◇ 2" in tab.text("#images"), "the list shows the predictions")
        assert not (tmp_path / "masks").exists()
        tab.page.locator("#canvas").focus()
        tab.press("s")
        until(lambda: tab.state()["walk"] == [0, 2], "they are suggested")
        tab.saves("Enter")
        tab.press("n")
        assert tab.state()["objects"] == 1
        assert tab.page.evaluate("window.scrollX") == 0

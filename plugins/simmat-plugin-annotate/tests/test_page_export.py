"""Exporting from the annotator's page, and importing what is to be corrected."""

import json

import pytest
from browser import browser, folder_of, until

pytestmark = pytest.mark.slow


def test_an_export_that_is_refused_says_why_and_one_that_is_not_is_a_file(tmp_path, server_of):
    """A download that fails in silence looks like a browser that is slow."""
    centres = folder_of(tmp_path, ["a", "b", "c"])
    broken = [tmp_path / f"masks/{name}.png" for name in "bc"]
    broken[0].parent.mkdir()
    for mask in broken:
        mask.write_bytes(b"not a png")
    server = server_of("--modality", "gray", "--regions", "instances")
    with browser() as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        tab.click(*centres[0])
        tab.saves("Enter")
        tab.page.click("#export")
        said = until(lambda: tab.text(".message.bad"), "the page says why")
        for mask in broken:
            assert said.count(str(mask)) == 1
        assert "remove" in said
        for mask in broken:
            mask.unlink()
        with tab.page.expect_download() as download:
            tab.page.click("#export")
        assert download.value.suggested_filename.endswith("-coco.json")
        document = json.loads(download.value.path().read_text())
        assert [image["file_name"] for image in document["images"]] == ["a.png"]
        assert len(document["annotations"]) == 1


def test_imported_predictions_are_accepted_in_the_page_on_a_narrow_screen(tmp_path, server_of):
    """Each with a key, as the model's own; a phone or a half of a screen shows the page without scrolling sideways."""
    folder_of(tmp_path, ["a", "b"])
    server = server_of("--modality", "gray", "--regions", "instances")
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
    with browser(width=400, height=800) as new_tab:
        tab = new_tab()
        tab.goto(server.address)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
        tab.page.set_input_files("#import-file", path)
        until(lambda: "◇ 2" in tab.text("#images"), "the list shows the predictions")
        assert not (tmp_path / "masks").exists()
        tab.page.locator("#canvas").focus()
        tab.press("s")
        until(lambda: tab.state()["walk"] == [0, 2], "they are suggested")
        tab.saves("Enter")
        tab.press("n")
        assert tab.state()["objects"] == 1
        assert tab.page.evaluate("window.scrollX") == 0

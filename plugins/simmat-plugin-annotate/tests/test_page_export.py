"""Exporting from the annotator's page."""

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

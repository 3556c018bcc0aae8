"""What a page saved is opened again on the next day, to be corrected."""

from __future__ import annotations

import io
import json
import time
import zipfile

import numpy as np
import pytest
from mock_page import disc, opened_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["#save-coco", "#save-all"])
def saved(request, site, tmp_path_factory):
    """A file that was saved of two images, and the objects of the first; number 2 was deleted."""
    with opened_page(*site, "classes") as page:
        page.open("a.tif", "b.tif")
        page.tab.click("#find-everywhere")
        page.until("workspace.images.every((one) => one.isSearched) && !workspace.task")
        page.press("PageUp", "v")
        page.until("workspace.opened?.name === 'a.tif' && !workspace.task")
        page.click(*page.circles()[1][:2])
        page.press("Delete")
        page.tab.select_option("#scope", "all")
        file = page.save(request.param, tmp_path_factory.mktemp("saved"))
        return file, page.objects()


def drop(page, content, name="coco.json", images=("a.tif", "b.tif")):
    """Choose images and a saved file together."""
    files = [{"name": one, "mimeType": "image/tiff", "buffer": b"x"} for one in images]
    files.append({"name": name, "mimeType": "text/plain", "buffer": content})
    page.tab.set_input_files("#file-input", files)


def test_saved_objects_come_back_and_are_corrected(site, saved, tmp_path):
    """Somebody goes on after a night; numbers, classes and scores are those of before."""
    file, objects = saved
    with opened_page(*site, "classes") as page:
        drop(page, file.read_bytes(), file.name)
        page.until(
            "workspace.images.length === 2 && workspace.images.every((e) => e.isSearched)"
        )
        page.until("workspace.opened?.name === 'a.tif' && !workspace.task")
        assert page.text("#messages") == ""
        back = page.objects()
        assert list(back) == list(objects)
        for number, pixels in objects.items():
            assert np.array_equal(back[number], pixels)
        kept = page.run("workspace.labels.objects[1].mask")
        assert (kept["classId"], kept["score"]) == (1, pytest.approx(0.88))
        page.press("c")
        page.click(*page.circles()[1][:2])
        page.press("Enter")
        assert np.array_equal(page.objects()[10], disc(page.circles()[1]))
        page.tab.select_option("#scope", "all")
        again = json.loads(page.save("#save-coco", tmp_path).read_text())
        assert len(again["annotations"]) == 18


def changed(document, case):
    """Return the bytes of a saved file of one image that does not fit."""
    document["images"] = document["images"][:1]
    of_first = [one for one in document["annotations"] if one["image_id"] == 1]
    document["annotations"] = of_first
    if case == "class":
        document["categories"][0]["name"] = "barley"
    elif case == "size":
        document["images"][0].update(width=480, height=640)
        for annotation in of_first:
            annotation["segmentation"]["size"] = [640, 480]
    elif case == "name":
        document["images"] = [{**document["images"][0], "file_name": "z.tif"}]
        document["annotations"] = []
    elif case == "other json":
        return b"[1, 2]"
    text = json.dumps(document).encode()
    return text[:500] if case == "damaged" else text


@pytest.mark.parametrize("saved", ["#save-coco"], indirect=True)
@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("class", "barley"),
        ("size", "480 × 640"),
        ("name", "z.tif"),
        ("damaged", "damaged"),
        ("other json", "not COCO"),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_loses_nothing(site, saved, case, said):
    """One message, and the work in the tab stays."""
    file, _ = saved
    content = changed(json.loads(file.read_text()), case)
    with opened_page(*site, "classes") as page:
        page.open("a.tif")
        page.click(*page.circles()[4][:2])
        page.press("Enter")
        drop(page, content, images=())
        page.until("document.querySelector('.message.bad')")
        page.until("workspace.opened && !workspace.task")
        assert page.tab.locator(".message.bad").count() == 1
        assert said in page.text("#messages")
        assert np.array_equal(page.objects()[1], disc(page.circles()[4]))
        assert len(page.objects()) == 1


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("cut off", "damaged or no zip"),
        ("no zip", "damaged or no zip"),
        ("without objects", "holds no coco.json"),
    ],
)
def test_a_zip_that_does_not_fit_is_named_and_loses_nothing(site, case, said):
    """A download that was broken off, a renamed file, or a zip of masks alone."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        name = "a_objects.png" if case == "without objects" else "coco.json"
        archive.writestr(name, "{}" * 2000)
    content = {"cut off": packed.getvalue()[:-30], "no zip": b"{}"}.get(
        case, packed.getvalue()
    )
    with opened_page(*site, "classes") as page:
        page.open("a.tif")
        page.click(*page.circles()[4][:2])
        page.press("Enter")
        drop(page, content, "results.zip", images=())
        page.until("document.querySelector('.message.bad')")
        page.until("workspace.opened && !workspace.task")
        assert page.tab.locator(".message.bad").count() == 1
        assert said in page.text("#messages")
        assert np.array_equal(page.objects()[1], disc(page.circles()[4]))


def test_saved_files_say_when_and_where_they_were_made(saved):
    """Files of 1980, found by a command that nobody ran, would be traced in vain."""
    file, _ = saved
    if file.suffix == ".json":
        assert (
            "simmat export --html"
            in json.loads(file.read_text())["info"]["description"]
        )
        return
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            made = time.mktime((*entry.date_time, 0, 0, -1))
            assert abs(time.time() - made) < 600

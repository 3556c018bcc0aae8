"""An exported page opens from a disk in Chromium without a network, and answers as the runtime does."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simmat_runtime
from bundles import tiny_bundle
from mock_page import CHROMIUM, need_browser
from page_cases import WEB, need_built
from PIL import Image
from runs import registry
from simmat_plugin_export import html
from simmat_plugin_export.export import export

from simmat.bundle import Bundle, load_bundle
from simmat.cli import run
from simmat.data.card import DataCard
from simmat.errors import ConfigError
from simmat.model_spec import DenseSpec

pytestmark = pytest.mark.slow
SIZE = (45, 60)
OPEN = """async () => {
  const image = await simmatEngine.open([...document.getElementById("file").files], {});
  return [image.width, image.height, [...image.planes[0]]];
}"""
FILE_INPUT = """document.body.append(
  Object.assign(document.createElement("input"), {type: "file", id: "file"}))"""
WEBGPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
)
FAILURE = "(error) => `${error.constructor.name}: ${error.message}`"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny model with classes, of grey images."""
    folder = tiny_bundle(
        tmp_path_factory.mktemp("bundle") / "bundle",
        dense=DenseSpec(background=True, classes=(3, 5)),
        card=DataCard(regions="classes", class_names={3: "cat", 5: "dog"}),
    )
    return load_bundle(folder, registry())


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX files of the model."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def page_file(
    bundle: Bundle, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page with nothing to see."""
    need_browser()
    need_built()
    file = tmp_path_factory.mktemp("page") / "model.html"
    shown = json.loads((WEB / "build" / "page.json").read_text(encoding="utf-8"))
    html.write_page(bundle, exported, file, shown=shown)
    return file


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """What starts Chromium."""
    need_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Iterator[Any]:
    """Chromium, without a graphics processor."""
    opened = chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    yield opened
    opened.close()


@pytest.fixture
def tab(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, opened from the disk without a network, whose model is loaded."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.evaluate("simmatEngine.start()")
    page.evaluate(FILE_INPUT)
    yield page
    context.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grey image."""
    values = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(values).save(file)
    return file


def _opened(tab: Any, exported: Path, photo: Path) -> simmat_runtime.Model:
    """Open an image in the page, and in the runtime, which is returned."""
    tab.set_input_files("#file", str(photo))
    width, height, plane = tab.evaluate(OPEN)
    with Image.open(photo) as image:
        values = np.asarray(image).astype(np.float32)
    assert (height, width) == values.shape
    np.testing.assert_array_equal(np.reshape(plane, SIZE), values)
    runtime = simmat_runtime.load(exported)
    runtime.set_image(values)
    return runtime


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ([(20, 15, 1)], None),
        ([(20, 15, 1), (5, 5, 0)], None),
        ([], (5, 4, 40, 30)),
        ([(20, 15, 1)], (5, 4, 40, 30)),
    ],
    ids=["click", "two clicks", "box", "box and click"],
)
def test_a_prompt_gives_the_logits_of_the_runtime(
    tab: Any, exported: Path, photo: Path, points: list[Any], box: Any
) -> None:
    """A colleague who gets the page sees what the model does elsewhere."""
    runtime = _opened(tab, exported, photo)
    prompt = {
        "points": [{"x": x, "y": y, "onObject": on == 1} for x, y, on in points],
        **({"box": box} if box else {}),
    }
    found = tab.evaluate(
        "async (prompt) => { const found = await simmatEngine.logits(prompt); "
        "return [[...found.values], found.score]; }",
        prompt,
    )
    mask = tab.evaluate(
        "async (prompt) => { const found = await simmatEngine.predict(prompt); "
        "return {...found, inside: [...found.inside]}; }",
        prompt,
    )
    ours = runtime.predict([one[:2] for one in points], [one[2] for one in points], box)
    np.testing.assert_allclose(found[0], ours.low_res_logits.ravel(), atol=1e-3)
    assert found[1] == pytest.approx(ours.score, abs=1e-3)
    whole = np.zeros(SIZE, np.bool_)
    rows = slice(mask["y"], mask["y"] + mask["height"])
    columns = slice(mask["x"], mask["x"] + mask["width"])
    whole[rows, columns] = np.reshape(mask["inside"], (mask["height"], mask["width"]))
    assert (whole != ours.mask).mean() < 0.01
    assert mask.get("classId") == ours.class_id


def test_every_object_and_the_class_map_are_those_of_the_runtime(
    tab: Any, exported: Path, photo: Path
) -> None:
    """They need the whole walk: clicks, suppression, classes, growth, blending."""
    runtime = _opened(tab, exported, photo)
    found = tab.evaluate(
        "simmatEngine.everything().then((found) => found.map((one) => [one.area, one.score]))"
    )
    ours = [[int(one.mask.sum()), one.score] for one in runtime.everything()]
    assert len(found) == len(ours)
    np.testing.assert_allclose(found, ours, rtol=0.02, atol=1e-3)
    labels = tab.evaluate("simmatEngine.classMap().then((found) => [...found.labels])")
    assert (np.reshape(labels, SIZE) != runtime.semantic().labels).mean() < 0.01


def test_the_page_cannot_reach_a_network(tab: Any) -> None:
    """Images may be secret, so its policy allows no connection, and no code from texts."""
    sent = "fetch('https://example.org').then(() => 'sent', () => 'refused')"
    assert tab.evaluate(sent) == "refused"
    tab.evaluate("void setTimeout('window.hasRun = true')")
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.hasRun") is None


@pytest.mark.parametrize("place", ["graph", "cut"])
def test_a_damaged_page_says_so(
    browser: Any, page_file: Path, tmp_path: Path, place: str
) -> None:
    """Pages travel by mail and on sticks."""
    text = page_file.read_text(encoding="utf-8")
    start = re.search(r'id="simmat-encoder.onnx">', text)
    assert start is not None
    middle = start.end() + 2000
    if place == "graph":
        damaged = text[:middle] + "AAAAAAAA" + text[middle + 8 :]
    else:
        # the script is last, so it must be kept to say anything
        end = text.index("</script>", middle)
        damaged = text[: middle - middle % 4] + text[end:]
    file = tmp_path / "damaged.html"
    file.write_text(damaged, encoding="utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    said = page.evaluate(f"simmatEngine.start().then(() => 'ok', {FAILURE})")
    page.close()
    assert "damaged" in said


def test_an_unsuitable_sensor_is_refused_by_name(bundle: Bundle) -> None:
    """The page must not read numbers whose meaning it does not know."""
    need_built()
    sensor = type(bundle.adapter)()
    sensor.name = "sonar"
    assert "it reads those of" in html._unreadable(sensor)
    assert html._unreadable(bundle.adapter) == ""


def test_a_gallery_has_a_page_that_shows_its_picture(
    bundle: Bundle, browser: Any, tmp_path: Path
) -> None:
    """Whoever looks for a model tries it where it is listed."""
    need_built()
    hub = pytest.importorskip("simmat_plugin_hub")
    hub.push_bundle(bundle.path, str(tmp_path / "pets.safetensors"))
    Image.new("RGB", (32, 24), (200, 10, 10)).save(tmp_path / "pets.jpg")
    assert run(["bundle", "index", str(tmp_path), "--html"]) == 0
    page = browser.new_context(offline=True).new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.click("text=Try in the browser")
    page.locator("#backend", has_text=re.compile(".")).wait_for()
    assert page.title() == "pets"
    shown = "document.querySelector('#picture-large').naturalWidth"
    assert page.evaluate(shown) == 32
    page.context.close()


def test_a_page_that_is_not_built_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A clone has no built page."""
    monkeypatch.setattr(html, "_built", lambda name: tmp_path / name)
    with pytest.raises(ConfigError, match="make page"):
        html.check_page(bundle)


def test_the_command_writes_a_page_alone(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user wants the page, not the files it is made of."""
    need_built()
    file = tmp_path / "model.html"
    assert run(["export", str(bundle.path), "--html", str(file)]) == 0
    assert "open it in a browser" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]
    text = file.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "cat" in text
    assert run(["export", str(bundle.path)]) == 2
    assert run(["export", str(bundle.path), "--html", str(tmp_path / "a.txt")]) == 2


def test_a_page_that_cannot_be_written_is_refused_before_the_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tracing takes a minute, which would be lost."""
    folder = tmp_path / "page.html"
    folder.mkdir()
    (tmp_path / "file").touch()
    missing = str(tmp_path / "no-bundle")  # is not looked for yet
    assert run(["export", missing, "--html", str(folder)]) == 2
    assert "is a folder; give the name of a file in it" in capsys.readouterr().err
    assert run(["export", missing, "--html", str(tmp_path / "file/page.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_picture_is_reduced_to_what_the_page_shows(tmp_path: Path) -> None:
    """One of a camera has megabytes, and may say where it was taken."""
    Image.new("RGBA", (1280, 900), (200, 10, 10, 255)).save(tmp_path / "a.png")
    head, _, content = html.read_picture(tmp_path / "a.png").partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (640, 450)
        assert picture.getpixel((0, 0))[0] > 190
        assert not picture.getexif()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.zeros((4, 4), np.uint16), "NAME_overlay.png"),
        (b"no picture", "not a file of PNG"),
        (None, "no such file"),
    ],
    ids=["16 bits", "text", "none"],
)
def test_what_is_no_picture_is_refused_before_the_export(
    tmp_path: Path, content: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw values of a sensor would be shown white."""
    picture = tmp_path / "a.png"
    if isinstance(content, bytes):
        picture.write_bytes(content)
    elif content is not None:
        Image.fromarray(content).save(picture)
    before = list(tmp_path.iterdir())
    words = ["export", str(tmp_path / "b"), "--picture", str(picture)]
    assert run([*words, "--html", str(tmp_path / "a.html")]) == 2
    assert said in capsys.readouterr().err
    assert run([*words, "--out", str(tmp_path / "out")]) == 2
    assert "give --html" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("precision", "backend"), [("fp32", "webgpu"), ("fp16", "wasm")]
)
def test_webgpu_gives_the_logits_of_the_runtime(
    bundle: Bundle,
    chromium: Any,
    photo: Path,
    tmp_path: Path,
    precision: Any,
    backend: str,
) -> None:
    """Chromium has a graphics processor in software, without half precision; there the processor takes over."""
    need_built()
    exported = tmp_path / "model"
    export(bundle, exported, precision=precision)
    file = tmp_path / "model.html"
    shown = json.loads((WEB / "build" / "page.json").read_text(encoding="utf-8"))
    html.write_page(bundle, exported, file, shown=shown)
    arguments = ["--no-sandbox", *WEBGPU]
    opened = chromium.launch(executable_path=CHROMIUM, args=arguments)
    page = opened.new_context(offline=True).new_page()
    page.goto(file.as_uri())
    if not page.evaluate("navigator.gpu.requestAdapter().then(Boolean)"):
        opened.close()
        pytest.skip("this Chromium has no graphics processor in software")
    assert page.evaluate("simmatEngine.start()")["name"] == backend
    page.evaluate(FILE_INPUT)
    runtime = _opened(page, exported, photo)
    found = page.evaluate(
        "simmatEngine.logits({points: [{x: 20, y: 15, onObject: true}]})"
        ".then((found) => [[...found.values], found.score])"
    )
    opened.close()
    ours = runtime.predict([(20, 15)], [1], None)
    np.testing.assert_allclose(found[0], ours.low_res_logits.ravel(), atol=1e-3)
    assert found[1] == pytest.approx(ours.score, abs=1e-3)

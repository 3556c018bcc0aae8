"""The model in a page answers as `simmat_runtime` does: the page opens from a disk in Chromium, without a network."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simmat_runtime
from bundles import tiny_bundle
from mock_page import CHROMIUM, WEB
from PIL import Image
from runs import registry
from simmat_plugin_export import html
from simmat_plugin_export.export import export

import simmat
from simmat.bundle import Bundle, load_bundle
from simmat.cli import run
from simmat.data.instances import region_from_mask
from simmat.measurement import measure
from simmat.model_spec import DenseSpec

pytestmark = pytest.mark.slow

TESTING_PAGE = WEB / "build/page.json"
"""A page without anything to see; `npm run build` writes it, too."""
CLICK = {"points": [{"x": 40, "y": 20, "onObject": True}]}
FOUND = """async () => {
  const found = await simmatEngine.everything();
  return found.map((one) => ({ x: one.x, y: one.y, width: one.width, area: one.area, score: one.score,
                               classId: one.classId, inside: [...one.inside] }));
}"""


@dataclass
class Engine:
    """The engine of a page in a tab."""

    tab: Any

    def ask(self, script: str, argument: Any = None) -> Any:
        """Evaluate a function of JavaScript."""
        return self.tab.evaluate(script, argument)

    def open(self, name: str, content: bytes) -> dict[str, Any]:
        """Open a file; return its size, warnings, or the error."""
        self.tab.set_input_files(
            "#file",
            {"name": name, "mimeType": "application/octet-stream", "buffer": content},
        )
        found: dict[str, Any] = self.ask(
            """async () => {
              try {
                const image = await simmatEngine.open([...document.getElementById("file").files], {});
                return { width: image.width, height: image.height, warnings: image.warnings };
              } catch (error) { return { error: error.message }; }
            }"""
        )
        return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny model of gray images with two classes, which is sure of what it finds."""
    dense = DenseSpec(background=True, classes=(3, 5))
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    loaded = load_bundle(tiny_bundle(folder, dense=dense), registry())
    parameters = dict(loaded.model.named_parameters())
    parameters["foundation.decoder.iou.bias"].data.fill_(3.0)
    parameters["dense.classes.bias"].data[0] = -3.0  # background
    parameters["dense.distance.bias"].data.fill_(1.0)
    return loaded


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the exported model."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def page(
    bundle: Bundle, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page for tests."""
    if not TESTING_PAGE.is_file():
        pytest.skip("the page is not built; run make page")
    file = tmp_path_factory.mktemp("page") / "model.html"
    shown = json.loads(TESTING_PAGE.read_text())
    html.write_page(bundle, exported, file, shown=shown)
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; Debian: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def engine(page: Path, browser: Any) -> Engine:
    """The engine, started."""
    tab = opened(page, browser)
    tab.evaluate("simmatEngine.start()")
    return Engine(tab)


def opened(page: Path, browser: Any) -> Any:
    """Open a page in a tab, without a network."""
    tab = browser.new_context(offline=True).new_page()
    tab.goto(page.as_uri())
    tab.evaluate(
        """() => {
          const input = document.createElement("input");
          input.type = "file";
          input.id = "file";
          document.body.append(input);
        }"""
    )
    return tab


def picture(size_hw: tuple[int, int] = (52, 83)) -> np.ndarray:
    """(1, H, W) counts."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1, *size_hw)).astype(np.float32)


def as_png(planes: np.ndarray) -> bytes:
    """Return a gray image as PNG of 8 bits."""
    stream = io.BytesIO()
    Image.fromarray(planes[0].astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_clicks_boxes_and_objects_are_those_of_the_runtime(
    engine: Engine, exported: Path
) -> None:
    """Whoever gets the page gets the model that was validated."""
    planes = picture()
    model = simmat_runtime.load(exported)
    model.set_image(planes)
    assert engine.open("a.png", as_png(planes)) == {
        "width": 83,
        "height": 52,
        "warnings": [],
    }
    for prompt, asked in (
        (CLICK, {"points": [(40, 20)]}),
        ({"points": [], "box": [10, 5, 60, 40]}, {"box": (10, 5, 60, 40)}),
    ):
        found = engine.ask(
            """async (prompt) => {
              const { values, score } = await simmatEngine.logits(prompt);
              return { values: [...values], score };
            }""",
            prompt,
        )
        expected = model.predict(**asked)
        logits = np.reshape(found["values"], expected.low_res_logits.shape)
        np.testing.assert_allclose(logits, expected.low_res_logits, atol=1e-3)
        assert found["score"] == pytest.approx(expected.score, abs=1e-3)
    theirs = engine.ask(FOUND)
    ours = model.everything()
    assert len(theirs) == len(ours) > 0
    for one, other in zip(theirs, ours, strict=True):
        assert one["score"] == pytest.approx(other.score, abs=1e-3)
        assert one["classId"] == other.class_id
        assert one["area"] == pytest.approx(np.count_nonzero(other.crop), rel=0.02)


def test_objects_are_measured_as_simmat_measure_does(
    engine: Engine, bundle: Bundle
) -> None:
    """The table of the page can be put below one of the command line."""
    planes = picture()
    engine.open("a.png", as_png(planes))
    found = engine.ask(
        """async () => {
          const inside = new Uint8Array(7 * 16);
          for (let y = 0; y < 7; y++) for (let x = 0; x < 4 + 2 * y; x++) inside[16 * y + x] = 1;
          const mask = { x: 33, y: 17, width: 16, height: 7, inside, area: 70, score: 1 };
          return await simmatEngine.measure([mask]);
        }"""
    )
    inside = np.zeros((52, 83), np.bool_)
    for y in range(7):
        inside[17 + y, 33 : 37 + 2 * y] = True
    model = simmat.Predictor.of_bundle(bundle)
    image = model.set_image(planes)
    region = region_from_mask(inside, None)
    assert region is not None
    table = measure(image, [region]).row(0)
    names = [column["name"] for column in found["columns"]]
    (row,) = found["rows"]
    assert set(names) <= set(table)
    assert len(names) > 15
    for name, value in zip(names, row, strict=True):
        expected = np.nan if table[name] is None else table[name]
        close = pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)
        assert value == close, name


def test_what_is_no_image_of_the_sensor_is_refused_and_work_goes_on(
    engine: Engine,
) -> None:
    """A bomb must not end the tab, and a wrong file must not be guessed at."""
    colours = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(colours, "PNG")
    for name, content, said in (
        ("bomb.tif", tiff_bomb(), "65536"),
        ("colours.png", colours.getvalue(), "one plane"),
        ("text.tif", b"no image", "text.tif"),
        ("short.png", as_png(picture())[:200], "short.png"),
    ):
        found = engine.open(name, content)
        assert said in found.get("error", ""), (name, found)
    assert engine.open("a.png", as_png(picture()))["width"] == 83


def tiff_bomb() -> bytes:
    """Return a TIFF that claims 65536 x 65536 pixels in a few bytes."""
    entries = [
        (256, 4, 1, 65536),
        (257, 4, 1, 65536),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, 65536),
        (279, 4, 1, 100),
    ]
    body = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 0)


def test_a_damaged_page_says_so(page: Path, browser: Any, tmp_path: Path) -> None:
    """A page that was cut or changed on its way must not compute with what is left."""
    content = page.read_text(encoding="utf-8")
    start = content.index('id="simmat-encoder.onnx">') + 2000
    damaged = tmp_path / "damaged.html"
    damaged.write_text(content[:start] + "AAAA" + content[start + 4 :], "utf-8")
    said = opened(damaged, browser).evaluate(
        "simmatEngine.start().then(() => 'started', (error) => error.message)"
    )
    assert "damaged" in said


def test_the_page_may_connect_to_nothing(page: Path) -> None:
    """Images stay where they are."""
    content = page.read_text(encoding="utf-8")
    policy = content.split('http-equiv="Content-Security-Policy" content="')[1]
    policy = policy.split('"')[0]
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "unsafe-eval" not in policy.replace("'wasm-unsafe-eval'", "")
    assert "http" not in policy


def test_a_sensor_that_the_page_cannot_read_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The export says so, and not the colleague who opens the page."""
    bundle = tiny_bundle(tmp_path / "bundle", modality="polarization")
    assert run(["export", str(bundle), "--html", str(tmp_path / "a.html")]) == 2
    assert "polarization" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()

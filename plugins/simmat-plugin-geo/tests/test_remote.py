"""Rasters read by URL: the same pixels as from a file, only what was named, and only a part of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import rasterio
from bundles import tiny_bundle
from runs import registry

import simmat
from simmat.cli import run
from simmat.errors import DataError, SimMATError
from simmat.io.paths import require_file, require_folder
from simmat.model_spec import DenseSpec
from simmat.types import Window


class RangeHandler(SimpleHTTPRequestHandler):
    """Answers range requests, which Python's own server does not, and keeps what was asked."""

    asked: list[tuple[str, int]]

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.asked.append((self.path, 0))
            self.send_error(404)
            return
        content = file.read_bytes()
        first, _, last = (
            self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        )
        part = content[int(first) : int(last) + 1 if last else None]
        self.asked.append((self.path, len(part)))
        self.send_response(206)
        self.send_header(
            "Content-Range",
            f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}",
        )
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine for the folder "www"."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "testing,geo")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "www").mkdir()
    RangeHandler.asked = []
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(RangeHandler, directory=str(tmp_path / "www"))
    ) as served:
        thread = Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def save_cog(path: Path, side: int = 600) -> Path:
    """A tiled GeoTIFF of random counts, with a corner of nodata."""
    values = np.random.default_rng(0).integers(1, 250, (side, side)).astype(np.uint8)
    values[:10, :10] = 0
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": side,
        "width": side,
        "dtype": "uint8",
        "nodata": 0,
    }
    place = {
        "crs": "EPSG:32632",
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 6_000_000),
    }
    with rasterio.open(
        path, "w", **profile, **place, tiled=True, blockxsize=64, blockysize=64
    ) as file:
        file.write(values, 1)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads, as it is before training."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return tiny_bundle(
        tmp_path_factory.mktemp("remote") / "bundle", dense=dense, image_size=32
    )


def test_a_window_of_a_url_is_that_of_the_file(
    bundle: Path, server: str, tmp_path: Path
) -> None:
    """Values, validity and place, of which a part of the file is asked for, and nothing beside it."""
    file = save_cog(tmp_path / "www/scene.tif")
    model = simmat.load(bundle, device="cpu", registry=registry())
    remote, local = (
        model.open_image(image).reader for image in (f"{server}/scene.tif", file)
    )
    window = Window(0, 0, 40, 70)
    there, here = remote.read(window), local.read(window)
    np.testing.assert_array_equal(there.data, here.data)
    np.testing.assert_array_equal(there.valid, here.valid)
    assert not here.valid[0, 0, 0]
    assert remote.georeference == local.georeference
    assert there.origin == f"{server}/scene.tif"
    assert {path for path, _ in RangeHandler.asked} == {"/scene.tif"}
    assert sum(count for _, count in RangeHandler.asked) < file.stat().st_size / 2
    small = remote.read_overview(Window(0, 0, 600, 600), 2)  # type: ignore[attr-defined]
    assert (small.size_hw, bool(small.valid[0, :5, :5].any())) == ((300, 300), False)


def test_predict_takes_a_url(bundle: Path, server: str, tmp_path: Path) -> None:
    """What a query holds, such as a signature, is not written."""
    save_cog(tmp_path / "www/scene.tif", 70)
    out = tmp_path / "out"
    call = [
        "predict",
        str(bundle),
        f"{server}/scene.tif?key=secret",
        "--semantic",
        "--out",
        str(out),
    ]
    assert run([*call, "--device", "cpu"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "scene.json",
        "scene_classes.tif",
        "scene_overlay.png",
    ]
    text = (out / "scene.json").read_text()
    assert list(json.loads(text)["files"].values()) == [f"{server}/scene.tif"]
    assert "secret" not in text


def test_a_url_without_a_raster_is_refused(
    bundle: Path, server: str, tmp_path: Path
) -> None:
    """The message has the address as it was typed, and the way out."""
    model = simmat.load(bundle, device="cpu", registry=registry())
    (tmp_path / "www/page.tif").write_text("<html>")
    for name in ("none.tif", "page.tif"):
        with pytest.raises(DataError, match=f"{server}/{name}.*download"):
            model.open_image(f"{server}/{name}")
    with pytest.raises(
        DataError, match=r"https://host/a\.tif.*download other files first"
    ):
        require_file(Path("https://host/a.tif"))


@pytest.mark.parametrize("url", ["https://host/a.png", "HTTPS://host/set"])
def test_other_urls_are_to_be_downloaded(
    bundle: Path, tmp_path: Path, url: str
) -> None:
    """For an image, a data set and a bundle the message says what is read by URL."""
    with pytest.raises(
        SimMATError, match=f"{url} is not a file on this machine.*download it first"
    ):
        simmat.load(url, device="cpu", registry=registry())
    calls = (
        lambda: simmat.open_dataset(url, "raster"),
        lambda: require_file(Path(url)),
        lambda: require_folder(Path(url).absolute(), ""),
    )
    for call in calls:
        with pytest.raises(SimMATError, match=f"{url}: no such .*GeoTIFF.* download"):
            call()


def test_a_vrt_is_refused_with_the_way_to_join_tiles(
    bundle: Path, tmp_path: Path
) -> None:
    """It may name a file outside, or an address."""
    (tmp_path / "map.vrt").write_text("<VRTDataset/>")
    with pytest.raises(DataError, match=r"map\.vrt.*--mosaic"):
        simmat.load(bundle, device="cpu", registry=registry()).open_image(
            tmp_path / "map.vrt"
        )

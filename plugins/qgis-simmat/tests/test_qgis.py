"""The plugin in a real QGIS, whose Python has no SimMAT; without QGIS these are skipped."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from bundles import GRAY, METRICS, SPEC
from installed import need_plugins
from runs import registry

from simmat.assemble import assemble, find_parts
from simmat.bundle import trained_tensors, write_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("qgis") and shutil.which("qgis_process")),
        reason="no QGIS here",
    ),
]
ROOT = Path(__file__).resolve().parents[3]
ANNOTATE = "plugins/simmat-plugin-annotate/src/simmat_plugin_annotate"
HOME = ROOT / "plugins/qgis-simmat/simmat_qgis"
WEST, NORTH, PIXEL = 600_000, 5_000_000, 2
SQUARES = (80, 60, 140, 120), (200, 30, 240, 60)
"""The bright objects of the scene, in pixels: x0, y0, x1, y1."""


def on_map(x: float, y: float) -> tuple[float, float]:
    """Return a corner of a pixel in EPSG:32632."""
    return WEST + PIXEL * x, NORTH - PIXEL * y


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GeoTIFF, a bundle, the command, and the folder of QGIS's settings with the plugin."""
    need_plugins("lite", "geo", "annotate")
    import rasterio

    home = tmp_path_factory.mktemp("qgis")
    image = np.random.default_rng(0).normal(60, 4, (1, 200, 300)).astype(np.uint8)
    for x0, y0, x1, y1 in SQUARES:
        image[:, y0:y1, x0:x1] = 160
    grid = rasterio.transform.from_origin(WEST, NORTH, PIXEL, PIXEL)
    shape = {"count": 1, "height": 200, "width": 300, "dtype": "uint8"}
    with rasterio.open(
        home / "scene.tif", "w", "GTiff", crs="EPSG:32632", transform=grid, **shape
    ) as file:
        file.write(image)
    lite = registry("simmat-plugin-lite").foundation("lite")
    assert lite.weights is not None
    changes = {
        "foundation": "lite",
        "foundation_sha256": lite.weights.sha256,
        "image_size": 256,
    }
    changes |= {"mat": "mat-residual", "mat_options": {"contrast": 0.33}}
    spec = SPEC.model_copy(
        update=changes | {"channels": (GRAY.with_statistics(66.0, 28.0),)}
    )
    model = assemble(
        spec, find_parts(spec, registry("simmat-plugin-lite"), lite.weights.path)
    )
    write_bundle(home / "bundle.safetensors", spec, trained_tensors(model), METRICS)
    command = home / "simmat"
    paths = shlex.quote(os.pathsep.join(filter(None, sys.path)))
    start = f"PYTHONPATH={paths} exec {shlex.quote(sys.executable)} -m simmat"
    command.write_text(
        f'#!/bin/sh\necho $$ > {shlex.quote(str(home / "pid"))}\n{start} "$@"\n'
    )
    command.chmod(0o755)
    profile = home / "QGIS/QGIS3/profiles/default"
    plugin = profile / "python/plugins/simmat_qgis"
    shutil.copytree(HOME, plugin, ignore=shutil.ignore_patterns("__pycache__"))
    # as `make qgis` packs them
    for file in (f"{ANNOTATE}/client.py", f"{ANNOTATE}/static/icon.svg"):
        shutil.copy(ROOT / file, plugin)
    (profile / "QGIS").mkdir()
    (profile / "QGIS/QGIS3.ini").write_text(
        "[PythonPlugins]\nsimmat_qgis=true\nprocessing=true\n"
        f"[Processing]\nConfiguration\\SIMMAT_COMMAND={command}\n[simmat]\nbundle={home / 'bundle'}\n"
    )
    return home


def run(place: Path, command: list[str], **variables: str) -> str:
    """Run QGIS with settings of its own and return what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    # without this Python
    environment |= {"HOME": str(place), "XDG_DATA_HOME": str(place), "PATH": os.defpath}
    done = subprocess.run(
        command,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def iou(geometry: Any, square: tuple[int, int, int, int]) -> float:
    """Return the IoU of a polygon on the map with a square of the scene."""
    import shapely

    x0, y0, x1, y1 = square
    true = shapely.box(*on_map(x0, y1), *on_map(x1, y0))
    return float(true.intersection(geometry).area / true.union(geometry).area)


@pytest.fixture(scope="module")
def seen(place: Path) -> dict[str, Any]:
    """What in_qgis.py saw in the window of QGIS."""
    if not os.environ.get("DISPLAY"):
        pytest.skip("no display for the window of QGIS; use xvfb-run")
    picture = os.environ.get("QGIS_PICTURE", str(place / "qgis.png"))
    given = {
        "scene": str(place / "scene.tif"),
        "bundle": str(place / "bundle.safetensors"),
        "pid": str(place / "pid"),
    }
    given |= {
        "out": str(place / "seen.json"),
        "picture": picture,
        "beside": on_map(20, 180),
    }
    points = [on_map((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in SQUARES]
    code = str(Path(__file__).with_name("in_qgis.py"))
    run(
        place,
        ["qgis", "--nologo", "--noversioncheck", "--code", code],
        IN_QGIS=json.dumps(given | {"clicks": points}),
    )
    found: dict[str, Any] = json.loads((place / "seen.json").read_text())
    assert "failed" not in found, found["failed"]
    return found


def test_clicks_become_polygons_on_the_objects(seen: dict[str, Any]) -> None:
    """The map is in another coordinate system than the raster; the server is started once."""
    import shapely

    found = seen["clicks"]
    assert (found["crs"], found["map_crs"]) == ("EPSG:32632", "EPSG:3857")
    scores = [
        iou(shapely.from_wkt(one), square)
        for one, square in zip(found["objects"], SQUARES, strict=True)
    ]
    assert min(scores) > 0.7, scores
    assert len(set(found["servers"])) == 1


def test_the_server_ends_with_qgis(seen: dict[str, Any]) -> None:
    """It holds the memory of a model, and no window shows it."""
    end = time.monotonic() + 60
    while psutil.pid_exists(seen["clicks"]["servers"][0]):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_error_of_the_command_is_shown(seen: dict[str, Any]) -> None:
    assert "/no/such/bundle" in seen["clicks"]["refused"]
    assert "dense head" in seen["algorithm"]["refused"]
    assert "Traceback" not in seen["algorithm"]["refused"]


def test_a_missing_command_is_named_with_the_place_to_set_it(
    seen: dict[str, Any],
) -> None:
    assert "/no/such/simmat" in seen["algorithm"]["missing"]
    assert "Processing > Providers > SimMAT" in seen["algorithm"]["missing"]


def test_cancelling_ends_the_command(seen: dict[str, Any]) -> None:
    """in_qgis.py waits until its process is gone."""
    assert seen["algorithm"]["ran"]


def test_the_algorithm_segments_a_window_without_a_window_of_qgis(place: Path) -> None:
    """As models and batches run it: a layer of points is the prompt, a GeoPackage the result."""
    import pyogrio
    import shapely

    x0, y0, x1, y1 = SQUARES[0]
    point = {"type": "Point", "coordinates": on_map((x0 + x1) / 2, (y0 + y1) / 2)}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    feature = {"type": "Feature", "properties": {}, "geometry": point}
    (place / "marks.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})
    )
    (west, south), (east, north) = on_map(40, 180), on_map(200, 20)
    inputs = {
        "INPUT": place / "scene.tif",
        "BUNDLE": place / "bundle.safetensors",
        "FIND": "marked objects",
        "EXTENT": f"{west},{east},{south},{north} [EPSG:32632]",
        "PROMPTS": place / "marks.geojson",
        "OUTPUT": place / "found.gpkg",
    }
    command = [
        "qgis_process",
        "run",
        "simmat:segment",
        "--",
        *(f"{name}={value}" for name, value in inputs.items()),
    ]
    run(place, command, QT_QPA_PLATFORM="offscreen")
    meta, _, shapes, _ = pyogrio.raw.read(place / "found.gpkg")
    assert meta["crs"] == "EPSG:32632"
    assert [iou(shape, SQUARES[0]) > 0.7 for shape in shapely.from_wkb(shapes)] == [
        True
    ]

"""An exported model as one web page: `simmat export --html`.

The page is built from web/ beforehand. What is put in here are the graphs, and json that describes the sensor, the
model card and the licences, in elements that a browser does not run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from simmat_runtime import manifest as names

from simmat.bundle import Bundle
from simmat.errors import ConfigError
from simmat.io.files import atomic_write_bytes
from simmat.io.images import read_image
from simmat.sensors.adapter import ModalityAdapter
from simmat_plugin_export.export import Progress, export
from simmat_plugin_export.page_graphs import page_graphs
from simmat_plugin_export.page_info import (
    ENDINGS,
    accepted_endings,
    model_parts,
    page_info,
)

READERS = frozenset(
    (
        "rgb",
        "gray",
        "raster",
        "nir",
        "red-nir",
        "thermal",
        "depth",
        "multispectral",
        "sentinel2",
        "landsat8",
    )
)
"""Sensors whose files the page reads, besides those of a `sensor.toml`; see web/src/engine/sensors."""
MAX_GRAPH_BYTES = 256 * 2**20
"""Bytes of all graphs at most, since a browser holds no text that is much longer."""
MAX_PICTURE_SIDE = 640
"""Pixels of the picture of a model, at most; a larger one is reduced."""


def check_built() -> None:
    """Check that the page is built.

    Raises:
        ConfigError: it is not.
    """
    if not _built("page.json").is_file():
        raise ConfigError(
            "the page that --html writes is not built in this copy of simmat-plugin-export: run `make page` in the "
            "source tree (it needs nodejs and npm), or install a release"
        )


def check_page(bundle: Bundle) -> None:
    """Check that a page can be made of a bundle, before it is exported.

    Raises:
        ConfigError: the page is not built, or does not read the files of the sensor.
    """
    check_built()
    sensors = bundle.adapter.sensors()
    if len(sensors) > 1:
        raise ConfigError(
            f"{bundle.path}: the model joins the sensors {', '.join(one.name for one in sensors)}, and a page takes "
            "the files of one; export it with --out instead"
        )
    sensor = bundle.adapter
    why = _unreadable(sensor)
    if why:
        raise ConfigError(
            f"{bundle.path}: modality {sensor.name!r} cannot be exported as a page: {why}; export it with --out "
            "instead"
        )


def _unreadable(sensor: ModalityAdapter) -> str:
    """Return why the page cannot read the files of a sensor; "" if it can."""
    if sensor.definition is None and sensor.name not in READERS:
        return f"it reads those of {', '.join(sorted(READERS))}, and of a sensor.toml"
    if len(sensor.sources) > 1:
        files = ", ".join(sensor.source_names())
        return f"an image has several files ({files}), and a page takes one"
    if not accepted_endings(sensor):
        return f"its files end in {', '.join(sensor.sources[0].extensions)}, and a page reads {', '.join(ENDINGS)}"
    return ""


def read_picture(file: Path) -> str:
    """Return a picture as a page holds it, a data URL; a large one is reduced.

    Raises:
        DataError: the file is missing, damaged, or no image.
        ConfigError: it is no picture of 8 bits.
    """
    image = read_image(file)
    if image.colour not in ("rgb", "gray") or image.planes.dtype != np.uint8:
        raise ConfigError(
            f"{file}: the picture of a model must have 8 bits, gray or red, green and blue; got "
            f"{len(image.planes)} planes of {image.planes.dtype}; simmat predict writes one, NAME_overlay.png"
        )
    colours = np.broadcast_to(image.planes[:3], (3, *image.planes.shape[1:]))
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(colours, 0, 2)))
    picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{_base64(content.getvalue())}"


def export_page(
    bundle: Bundle,
    file: Path,
    *,
    title: str = "",
    picture: str = "",
    progress: Progress = lambda step: None,
) -> int:
    """Export a bundle as a page alone; return its size in bytes.

    Args:
        bundle: the bundle, on the CPU.
        file: the page; an earlier one is replaced.
        title, picture: as `write_page` takes them.
        progress: called with the name of each step.

    Raises:
        ConfigError: a page cannot run the model.
        OutputError: the file cannot be written.
    """
    check_page(bundle)
    with TemporaryDirectory() as folder:
        export(bundle, Path(folder), progress=progress)
        return write_page(bundle, Path(folder), file, title=title, picture=picture)


def write_page(
    bundle: Bundle,
    folder: Path,
    file: Path,
    *,
    title: str = "",
    picture: str = "",
    shown: Mapping[str, Any] | None = None,
) -> int:
    """Write the page of an exported model; return its size in bytes.

    Args:
        bundle: what was exported; `check_page` has accepted it.
        folder: what `export` wrote.
        file: the page; an earlier one is replaced.
        title: of the page; "" names the sensor.
        picture: what the model does, as `read_picture` returns it; "" for none.
        shown: what is seen of the page, as web/build.mjs writes it; None for the ordinary one.

    Raises:
        ConfigError: the graphs are too large for a browser.
        OutputError: the file cannot be written.
    """
    manifest = names.read_manifest(folder)
    graphs = {name: (folder / name).read_bytes() for name in manifest.files}
    graphs = {name: graphs[name] for name in graphs if name.endswith(".onnx")}
    total = sum(map(len, graphs.values()))
    if total > MAX_GRAPH_BYTES:
        raise ConfigError(
            f"{bundle.path}: the graphs have {total / 2**20:.0f} MiB, more than the {MAX_GRAPH_BYTES / 2**20:.0f} MiB "
            "that a browser opens in a page; train on a smaller foundation model such as lite, or store the encoder "
            "smaller with --quantize int8-static"
        )
    files = page_graphs(graphs)
    info = page_info(bundle, title, picture)
    info["notices"] = json.loads(_read("notices.json"))
    texts = {
        "simmat-info": _json(info),
        "simmat-model": _json(model_parts(bundle, manifest.document, files)),
    }
    for kind in ("plain", "webgpu"):
        texts[f"simmat-worker-{kind}"] = _base64(_read(f"worker-{kind}.js.gz"))
        texts[f"simmat-wasm-{kind}"] = _base64(_read(f"ort-{kind}.wasm.gz"))
    for name, content in files.items():
        texts[f"simmat-{name}"] = _base64(gzip.compress(content, 9, mtime=0))
    page = _page(shown or json.loads(_read("page.json")), texts).encode("utf-8")
    atomic_write_bytes(file, page)
    return len(page)


def _page(built: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """Return the page with its policy, style, script, and the texts in elements that a browser does not run."""
    script, css = built["script"], built["css"]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}' 'wasm-unsafe-eval'",
            f"style-src '{_digest(css)}'",
            "img-src data: blob:",
            "worker-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    data = "\n".join(
        f'<script type="application/octet-stream" id="{name}">{text}</script>'
        for name, text in texts.items()
    )
    content = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<style>{css}</style>",
        f"{data}\n<script>{script}</script>",
    )
    page: str = built["html"]
    for place, part in zip(built["parts"], content, strict=True):
        page = page.replace(place, part)
    return page


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{_base64(digest)}"


def _json(value: Any) -> str:
    r"""Return json for an element of a page: "<" as \u003c, since "</script" would end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _built(name: str) -> Traversable:
    return resources.files("simmat_plugin_export").joinpath("page", name)


def _read(name: str) -> bytes:
    return _built(name).read_bytes()

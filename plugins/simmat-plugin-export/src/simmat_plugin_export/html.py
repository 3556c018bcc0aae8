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
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from PIL import Image
from simmat_runtime import manifest as names

from simmat.bundle import Bundle
from simmat.drawing.overlay import class_colour
from simmat.errors import ConfigError
from simmat.io.files import atomic_write_bytes
from simmat.io.images import read_image
from simmat.model_spec import with_options
from simmat.predictor.encoded import spread_text
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import RGB_QUANTITY, Channel
from simmat_plugin_export.export import Progress, export
from simmat_plugin_export.page_graphs import page_graphs

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
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
"""Endings of the files that it reads."""
MAX_GRAPH_BYTES = 256 * 2**20
"""Bytes of all graphs at most, since a browser holds no text that is much longer."""
MAX_PICTURE_SIDE = 640
"""Pixels of the picture of a model, at most; a larger one is reduced."""
_NOT_ASKED = frozenset(("separate_files", "variables", "resolution"))
"""Options for files that the page does not read."""
_SHOWN = {"K": {"unit": "°C", "factor": 1.0, "offset": -273.15}}
"""Unit -> the one that people read."""


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
    if not _accepted(sensor):
        return f"its files end in {', '.join(sensor.sources[0].extensions)}, and a page reads {', '.join(ENDINGS)}"
    return ""


def _accepted(sensor: ModalityAdapter) -> list[str]:
    """Return the endings of a sensor's files that the page reads."""
    endings = sensor.sources[0].extensions
    return [ending for ending in endings if ending.endswith(ENDINGS)]


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
    texts = {
        "simmat-info": _json(page_info(bundle, title, picture)),
        "simmat-model": _json(_model(bundle, manifest.document, files)),
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


def page_info(bundle: Bundle, title: str = "", picture: str = "") -> dict[str, Any]:
    """Return what the page shows of a model without loading it: `ModelInfo` in web/src/engine.ts."""
    spec = bundle.spec
    sensor = bundle.adapter
    dense = spec.dense
    values = [] if dense is None else [one for one in dense.classes if one is not None]
    classes = {}
    for value in values:
        name = spec.card.class_names.get(value, f"class {value}")
        classes[str(value)] = {"name": name, "colour": _hex(class_colour(value))}
    return {
        "title": title or f"SimMAT: {spec.modality}",
        "modality": spec.modality,
        "channels": [_shown_channel(channel) for channel in spec.sensor_channels],
        "options": list(sensor_options(sensor)),
        "accepts": _accepted(sensor),
        "classes": classes,
        "hasClassMap": dense is not None,
        "card": [{"name": name, "value": value} for name, value in _card(bundle)],
        "picture": picture,
        "notices": json.loads(_read("notices.json")),
    }


def _shown_channel(channel: Channel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": channel.name,
        "unit": channel.unit,
        "quantity": channel.quantity,
    }
    if channel.unit in _SHOWN:
        found["shown"] = _SHOWN[channel.unit]
    return found


def _hex(colour: Sequence[int]) -> str:
    red, green, blue = colour[:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def sensor_options(sensor: ModalityAdapter) -> Iterator[dict[str, Any]]:
    """Yield the options of a sensor that the page asks for, with the values of the training; nodata last."""
    fields = sensor.Options.model_fields
    for name in sorted(fields, key=lambda name: name in ModalityOptions.model_fields):
        if name in _NOT_ASKED:
            continue
        value = getattr(sensor.options, name)
        if name == "nodata":
            value = sensor.nodata(sensor.sources[0].name)
            value = None if value is None else format_nodata(value)
        yield {
            "name": name,
            "help": fields[name].description or "",
            "choices": _choices(fields[name].annotation),
            "value": _text(value),
        }


def _choices(annotation: Any) -> list[str]:
    """Return the texts that an option allows, "" for none; no texts if it is free."""
    if annotation is bool:
        return ["false", "true"]
    members = get_args(annotation)
    texts = [text for text in _literals(annotation) if text]
    if texts and type(None) in members:
        return ["", *texts]
    return texts


def _literals(annotation: Any) -> Iterator[str]:
    for member in get_args(annotation):
        if isinstance(member, str):
            yield member
        else:
            yield from _literals(member)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _model(
    bundle: Bundle, manifest: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return what the page's worker gets besides the graphs: `Parts` in web/src/messages.ts."""
    spec = bundle.spec
    sensor = bundle.adapter
    definition = None
    if sensor.definition is not None:
        definition = sensor.definition.model_dump(mode="json")
    channels = []
    for channel in spec.sensor_channels:
        channels.append(
            {
                "name": channel.name,
                "quantity": channel.quantity,
                "unit": channel.unit,
                "valid_range": None,
            }
        )
    digests = {}
    for name, content in files.items():
        digests[name] = {"sha256": hashlib.sha256(content).hexdigest()}
    return {
        "manifest": {**manifest, "files": digests},
        "sensor": {
            "name": sensor.name,
            "definition": definition,
            "channels": channels,
        },
        "contract": None if spec.inputs is None else spec.inputs.model_dump(),
        "spreads": [_spread(channel) for channel in spec.channels],
    }


def _spread(channel: Channel) -> dict[str, Any] | None:
    """Return what a channel's training values were like: `Spread` in web/src/engine/spread.ts; None if unknown."""
    if channel.quantity == RGB_QUANTITY or channel.mean is None:
        return None
    return {
        "name": channel.name,
        "mean": channel.mean,
        "std": channel.std,
        "text": spread_text(channel),
    }


def _card(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield (title, text) of what a user should know of a model."""
    spec = bundle.spec
    card = spec.card
    modality = spec.modality
    if spec.selected_channels is not None:
        modality += f", channels {', '.join(map(str, spec.selected_channels))}"
    yield "sensor", modality
    for sensor, options in sorted(spec.modality_options.items()):
        if options:
            yield "options of the sensor", with_options(sensor, options)
    has_classes = spec.dense is not None and len(spec.dense.classes) > 1
    yield from _score_rows(spec.metrics, has_classes=has_classes)
    if spec.trained_on is not None:
        yield "trained on", f"{sum(1 for _ in spec.trained_on.rows())} images"
    yield "regions", f"{card.regions}, smallest {card.smallest}"
    for title, text in (
        ("data from", card.source),
        ("licence of the data", card.licence),
        ("licence of the model", spec.licence),
        ("notes", card.notes),
    ):
        yield title, text or "not stated"
    yield "foundation model", spec.foundation
    yield "transfer layer", with_options(spec.mat, spec.mat_options)
    yield "tuning", with_options(spec.tune, spec.tune_options)
    yield "input", f"{spec.image_size} px, aspect {spec.aspect}"
    for name, version in sorted(spec.versions.items()):
        yield f"version of {name}", version
    yield "sha256 of the bundle", spec.sha256


def _score_rows(
    metrics: Mapping[str, Any], *, has_classes: bool
) -> Iterator[tuple[str, str]]:
    """Yield (title, text) of the scores of the validation, if there was one."""
    scores = metrics.get("val")
    if not isinstance(scores, Mapping):
        return
    titles = {
        "miou_object": "mean IoU of objects (1: each mask is its object, to the pixel)"
    }
    if has_classes:
        titles["miou_class"] = "mean IoU of classes"
    for name, title in titles.items():
        score = scores.get(name)
        if isinstance(score, int | float):
            yield title, f"{score:.3f}"
    everything = scores.get("everything")
    if isinstance(everything, Mapping) and isinstance(everything.get("ap50"), float):
        title = "AP50 without a click (1: every object is found, and nothing else)"
        yield title, f"{everything['ap50']:.3f}"
    images, objects = scores.get("images", "?"), scores.get("objects", "?")
    protocol = metrics.get("protocol", "one-click")
    yield "validated on", f"{objects} objects in {images} images, protocol {protocol}"


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

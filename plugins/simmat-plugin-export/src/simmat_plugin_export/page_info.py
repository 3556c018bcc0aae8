"""What a page is told of its model: the sensor and its options, the channels, the classes and the card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from simmat.bundle import Bundle
from simmat.drawing.display import spread_text
from simmat.drawing.overlay import class_colour
from simmat.model_spec import with_options
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import RGB_QUANTITY, Channel

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
"""Endings of the files that a page reads."""
_NOT_ASKED = frozenset(("separate_files", "variables", "resolution"))
"""Options for files that a page does not read."""
_SHOWN = {"K": {"unit": "°C", "factor": 1.0, "offset": -273.15}}
"""Unit -> the one that people read."""


def accepted_endings(sensor: ModalityAdapter) -> list[str]:
    """Return the endings of a sensor's files that the page reads."""
    endings = sensor.sources[0].extensions
    return [ending for ending in endings if ending.endswith(ENDINGS)]


def page_info(bundle: Bundle, title: str, picture: str) -> dict[str, Any]:
    """Return what the page shows of a model without loading it: `ModelInfo` in web/src/engine.ts, less its notices."""
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
        "accepts": accepted_endings(sensor),
        "classes": classes,
        "hasClassMap": dense is not None,
        "card": [{"name": name, "value": value} for name, value in _card(bundle)],
        "picture": picture,
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


def model_parts(
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

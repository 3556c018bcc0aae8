"""The model card of a bundle: README.md, for people and for the Hugging Face hub.

Its head is the hub's metadata; everything else is taken from the bundle. The text is in `model_card.md.j2`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, cast

from simmat.bundle import BundleSpec, Package
from simmat.data.card import DataCard
from simmat.errors import SimMATError
from simmat.model_spec import with_options
from simmat.plugins.kinds import KINDS, Kind
from simmat.plugins.loader import installed
from simmat.plugins.registry import Registry
from simmat.sensors.normalize import describe
from simmat.sensors.options import format_nodata, modality_parts
from simmat.terminal import escape
from simmat.types import Channel

UNSTATED = "unknown"
"""The hub's own word for a licence that is not stated."""
_SCORES = {
    "miou_object": "mean IoU over objects",
    "miou_image": "mean IoU over images",
    "miou_class": "mean IoU over classes",
    "miou_best_predicted": "mean IoU, best alternative by predicted IoU",
    "miou_oracle": "mean IoU, best alternative by true IoU",
}


def model_card(
    sensors: BundleSpec | Mapping[str, BundleSpec], *, registry: Registry | None = None
) -> str:
    """Return the card of a bundle, in Markdown with YAML before it; the same bundle gives the same text.

    Characters that control a terminal are written as escapes.

    Args:
        sensors: what the bundle says; name -> what it says of each of several sensors.
        registry: knows the licence of the foundation model; None loads the plugins.
    """
    from jinja2 import Environment, StrictUndefined

    known = registry or installed()
    named = {"": sensors} if isinstance(sensors, BundleSpec) else sensors
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(text=_text, code=_code, json=json.dumps)
    source = (
        resources.files("simmat_plugin_hub")
        .joinpath("model_card.md.j2")
        .read_text(encoding="utf-8")
    )
    template = environment.from_string(source)
    rendered = []
    for number, (name, spec) in enumerate(named.items()):
        text = template.render(
            _facts(spec, known),
            head=number == 0,
            bundle=f"BUNDLE/{name}" if len(named) > 1 else "BUNDLE",
            licence=spec.licence,
            unstated=UNSTATED,
            foundation_licence=_foundation_licence(spec, known),
            tags=_tags(named),
            **_packages(spec, known),
        )
        rendered.append(text)
    return escape("".join(rendered))


def _tags(sensors: Mapping[str, BundleSpec]) -> list[str]:
    """Return the words by which the hub finds a bundle."""
    tags = ["simmat", "image-segmentation"]
    for spec in sensors.values():
        tags += spec.modality.split("+")
    tags += [spec.foundation for spec in sensors.values()]
    words = [re.sub(r"[^a-z0-9._-]+", "-", tag.lower()).strip("-.") for tag in tags]
    return [word for word in dict.fromkeys(words) if word]


def _foundation_licence(spec: BundleSpec, registry: Registry) -> str:
    """Return the licence of the foundation model; "" where its plugin is not installed."""
    try:
        return registry.foundation(spec.foundation).licence
    except SimMATError:
        return ""


def _facts(spec: BundleSpec, registry: Registry) -> dict[str, Any]:
    """Return what the template says of a sensor."""
    scores = spec.metrics.get("val")
    if not isinstance(scores, Mapping):
        scores = {}
    return {
        "spec": spec,
        "several_files": len(modality_parts(spec.modality)) > 1,
        "sensor_channels": describe(spec.sensor_channels),
        "channel_rows": [channel_row(channel) for channel in spec.channels],
        "score_rows": _score_rows(scores, registry),
        "metrics": {
            "step": spec.metrics.get("step", "?"),
            "protocol": str(spec.metrics.get("protocol", "one-click")),
            "objects": scores.get("objects", "?"),
            "images": scores.get("images", "?"),
        },
        "network_rows": network_rows(spec),
        "data_rows": data_rows(spec.card),
    }


def _score_rows(scores: Mapping[str, Any], registry: Registry) -> list[tuple[str, str]]:
    """Return (title, text) of the scores of masks, those of plugins among them."""
    titles = dict(_SCORES)
    for metric in registry.all("metric"):
        if metric.result == "mask":
            titles[metric.name] = metric.description
    rows = []
    for name, title in titles.items():
        score = scores.get(name)
        if isinstance(score, int | float):
            rows.append((title, f"{float(score):.3f}"))
    return rows


def network_rows(spec: BundleSpec) -> list[tuple[str, str]]:
    """Return (title, text) of what decides the network of a bundle."""
    modality = spec.modality
    if spec.selected_channels is not None:
        modality += f", channels {', '.join(map(str, spec.selected_channels))}"
    rows = [("modality", modality)]
    for sensor, options in sorted(spec.modality_options.items()):
        if options:
            rows.append(("options of the sensor", with_options(sensor, options)))
    for definition in spec.sensor_definitions:
        rows.append(("sensor in the bundle", definition.name))
    weights = f"sha256 {spec.foundation_sha256}"
    if spec.foundation_sha256 is None:
        weights = f"random, seed {spec.seed}"
    rows += [
        ("foundation model", spec.foundation),
        ("its weights", weights),
        ("transfer layer", with_options(spec.mat, spec.mat_options)),
        ("tuning", with_options(spec.tune, spec.tune_options)),
        ("input", f"{spec.image_size} px, aspect {spec.aspect}"),
        ("seed", str(spec.seed)),
        ("licence of the bundle", spec.licence or "not stated"),
    ]
    for package in spec.packages:
        rows.append(
            (f"{package.kind} from", f"{package.distribution} {package.version}")
        )
    return rows


def data_rows(card: DataCard) -> list[tuple[str, str]]:
    """Return (title, text) of what a data card says."""
    rows = [
        ("source", card.source or "not stated"),
        ("licence", card.licence or "not stated"),
        ("regions", f"{card.regions}, smallest {card.smallest}"),
        ("label value 0", card.zero_means),
        ("ignored label value", "none" if card.ignore is None else str(card.ignore)),
        (
            "no data",
            "none declared" if card.nodata is None else format_nodata(card.nodata),
        ),
    ]
    if card.crop:
        rows.append(("images", f"cut into windows of {card.crop}x{card.crop} px"))
    if card.class_attribute is not None:
        rows.append(("class of a polygon", card.class_attribute))
    if card.class_names:
        rows.append(
            (
                "classes",
                ", ".join(
                    f"{value}: {name}"
                    for value, name in sorted(card.class_names.items())
                ),
            )
        )
    if card.intrinsics is not None:
        numbers = [
            f"{key} = {value:g} px"
            for key, value in sorted(card.intrinsics.model_dump().items())
        ]
        rows.append(("camera", ", ".join(numbers)))
    return rows + ([("notes", card.notes)] if card.notes else [])


def channel_row(channel: Channel) -> tuple[str, ...]:
    """Return name, quantity, unit, wavelength in µm, valid range, mean and std of a channel, as texts."""
    valid_range = (
        ""
        if channel.valid_range is None
        else "{:.5g} to {:.5g}".format(*channel.valid_range)
    )
    numbers = (channel.wavelength_um, channel.mean, channel.std)
    wavelength, mean, std = (
        "" if value is None else f"{value:.5g}" for value in numbers
    )
    return (
        channel.name,
        channel.quantity,
        channel.unit,
        wavelength,
        valid_range,
        mean,
        std,
    )


def _text(value: object) -> str:
    """Return free text for a Markdown line or cell, without markup and line breaks."""
    flat = re.sub(r"([\\|*\[\]])", r"\\\1", " ".join(str(value).split()))
    return flat.replace("<", "&lt;").replace(">", "&gt;")


def _code(value: str) -> str:
    """Return a name that may be put between backticks."""
    return re.sub(r"[`\s|]+", " ", value)


def _packages(spec: BundleSpec, registry: Registry) -> dict[str, Any]:
    """Return what the template says of the packages that bring the parts of a bundle.

    Anybody may have registered a name that stands in a file alone. So only what is installed here and brings the part
    is named in a command; the rest is repeated as what the file says.
    """
    installed: dict[str, list[tuple[str, str]]] = {}
    claimed: list[Package] = []
    for package in spec.packages:
        if _brings(package, registry):
            parts = installed.setdefault(package.distribution, [])
            parts.append((package.kind, package.name))
        else:
            claimed.append(package)
    return {"packages": dict(sorted(installed.items())), "claimed": claimed}


def _brings(package: Package, registry: Registry) -> bool:
    """Return whether a package is installed here and brings the part that a bundle says."""
    if package.kind not in KINDS:
        return False
    try:
        owner = registry.owner(cast(Kind, package.kind), package.name)
    except SimMATError:
        return False
    return owner.partition(" ")[0] == package.distribution

"""The model card of a bundle: README.md, for people and for the Hugging Face hub.

Its head is the hub's metadata (license, library_name, pipeline_tag, tags); everything else is taken from the bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from simmat.bundle.document import BundleSpec
from simmat.data.card import DataCard
from simmat.errors import SimMATError
from simmat.model_spec import ModelSpec, with_options
from simmat.plugins.hooks import PROJECT
from simmat.plugins.registry import Kind, Registry, known_package
from simmat.sensors.names import modality_parts
from simmat.sensors.nodata import describe_nodata
from simmat.sensors.normalize import describe
from simmat.types import Channel

UNSTATED = "unknown"
"""The hub's own word for a licence that is not stated."""
_ONE_CLICK = "one-click"
"""Protocol of validation if none is stored."""
_SCORES = {
    "miou_object": "mean IoU over objects",
    "miou_image": "mean IoU over images",
    "miou_class": "mean IoU over classes",
    "miou_best_predicted": "mean IoU, best alternative by predicted IoU",
    "miou_oracle": "mean IoU, best alternative by true IoU",
    "boundary_iou": "boundary IoU",
}


def model_card(
    spec: BundleSpec,
    *,
    licence: str | None = None,
    foundation_licence: str = "",
    registry: Registry | None = None,
) -> str:
    """Return the card of a bundle, in Markdown with YAML before it; the same bundle gives the same text.

    Args:
        spec: of the bundle.
        licence: of the bundle, as the hub names it ("apache-2.0", "cc-by-4.0", "other").
        foundation_licence: of the foundation model, if known.
        registry: what is installed, to name the packages of plugins; None names SimMAT's own.
    """
    modality, foundation = _code(spec.modality), _code(spec.foundation)
    own = f"This bundle: {licence}." if licence else "The licence of this bundle is not stated; ask who made it."
    parts = [
        _head(spec, licence),
        f"# {_text(spec.modality)} on {_text(spec.foundation)}\n\n"
        f"A SimMAT bundle: a transfer layer and tuned weights that bring the sensor `{modality}` to the vision "
        f"foundation model `{foundation}`. It segments the objects that clicks and boxes mark on a sensor image. The "
        "frozen weights of the foundation model are not in it.",
        _use(spec, needed_packages(spec, registry)),
        _channels(spec),
        _scores(spec),
        "## How it was made\n\n" + _table(("", ""), network_rows(spec)),
        "## Data\n\n" + _table(("", ""), data_rows(spec.card)),
        f"## Licence\n\n{own} The foundation model has its own, `{foundation}`: "
        f"{_text(foundation_licence or 'see where it comes from')}; so have the data, see above.",
    ]
    return "\n\n".join(parts) + "\n"


def network_rows(spec: BundleSpec) -> list[tuple[str, str]]:
    """Return (title, text) of what decides the network of a bundle."""
    picked = "" if spec.picks is None else f", channels {', '.join(map(str, spec.picks))}"
    source = f"random, seed {spec.seed}" if spec.foundation_sha256 is None else f"sha256 {spec.foundation_sha256}"
    return [
        ("modality", spec.modality + picked),
        *(("sensor in the bundle", declared.name) for declared in spec.described),
        ("foundation model", spec.foundation),
        ("its weights", source),
        ("transfer layer", with_options(spec.mat, spec.mat_options)),
        ("tuning", with_options(spec.tune, spec.tune_options)),
        ("input", f"{spec.image_size} px, aspect {spec.aspect}"),
        ("seed", str(spec.seed)),
    ]


def data_rows(card: DataCard) -> list[tuple[str, str]]:
    """Return (title, text) of what a data card says."""
    rows = [
        ("source", card.source or "not stated"),
        ("licence", card.licence or "not stated"),
        ("regions", f"{card.regions}, smallest {card.smallest}"),
        ("label value 0", card.zero_means),
        ("ignored label value", "none" if card.ignore is None else str(card.ignore)),
        ("no data", "none declared" if card.nodata is None else describe_nodata(card.nodata)),
    ]
    if card.class_names:
        rows.append(("classes", ", ".join(f"{value}: {name}" for value, name in sorted(card.class_names.items()))))
    if card.intrinsics is not None:
        rows.append(("camera", ", ".join(f"{key} = {value:g} px" for key, value in sorted(card.intrinsics.items()))))
    return rows + ([("notes", card.notes)] if card.notes else [])


def _head(spec: BundleSpec, licence: str | None) -> str:
    tags = ["simmat", "image-segmentation", *spec.modality.split("+"), spec.foundation]
    words = dict.fromkeys(word for tag in tags if (word := re.sub(r"[^a-z0-9._-]+", "-", tag.lower()).strip("-.")))
    lines = [
        "---",
        f"license: {json.dumps(licence or UNSTATED)}",
        "library_name: simmat",
        "pipeline_tag: mask-generation",
        "tags:",
        *(f"- {json.dumps(word)}" for word in words),
        "---",
    ]
    return "\n".join(lines)


def _use(spec: BundleSpec, packages: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    brings = []
    for package, parts in packages.items():
        named = [f"the {'sensor' if kind == 'modality' else kind} `{_code(name)}`" for kind, name in parts]
        brings.append(f"`{package}` brings {' and '.join(named)}")
    plugins = f"{'; '.join(brings)}. " if brings else ""
    images = "--source NAME=FILE …" if len(modality_parts(spec.modality)) > 1 else "IMAGE"
    return (
        "## Use\n\n"
        "```\n"
        f"pip install {' '.join(['simmat', *packages])}\n"
        f"simmat predict BUNDLE {images} --point X,Y --out OUT\n"
        "simmat eval BUNDLE --data DIR\n"
        "```\n\n"
        f"{plugins}If a part is missing, the error names it. Input of other channels or units, and other foundation "
        "weights, are refused."
    )


def _channels(spec: BundleSpec) -> str:
    picked = "" if spec.picks is None else f" Of these it uses {_text(', '.join(map(str, spec.picks)))}."
    return (
        f"## Channels\n\nAn image holds {_text(describe(spec.sensor_channels))}.{picked} The network's input, with the "
        "statistics that normalize it:\n\n"
        + _table(
            ("channel", "quantity", "unit", "wavelength, µm", "valid range", "mean", "std"),
            [_channel_row(channel) for channel in spec.channels],
        )
    )


def _channel_row(channel: Channel) -> tuple[str, ...]:
    valid_range = "" if channel.valid_range is None else "{:.5g} to {:.5g}".format(*channel.valid_range)
    numbers = (channel.wavelength_um, channel.mean, channel.std)
    wavelength, mean, std = ("" if value is None else f"{value:.5g}" for value in numbers)
    return (channel.name, channel.quantity, channel.unit, wavelength, valid_range, mean, std)


def _scores(spec: BundleSpec) -> str:
    found = spec.metrics.get("val")
    scores: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    rows = [
        (title, f"{float(scores[key]):.3f}")
        for key, title in _SCORES.items()
        if isinstance(scores.get(key), int | float)
    ]
    if not rows:
        return "## Scores\n\nNone are stored."
    step = spec.metrics.get("step", "?")
    counts = f"{scores.get('objects', '?')} objects in {scores.get('images', '?')} images"
    protocol = str(spec.metrics.get("protocol", _ONE_CLICK))
    how = "one click per object, masks compared at the original size"
    if protocol != _ONE_CLICK:
        how = f"scored as by `simmat eval --protocol {_code(protocol)}`"
    return (
        f"## Scores\n\nOn the validation split, which also chose the step (step {_text(str(step))}; {_text(counts)}): "
        f"{how}.\n\n" + _table(("score", "value"), rows)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """Return free text for a Markdown line or cell, without markup and line breaks."""
    flat = re.sub(r"([\\|*\[\]])", r"\\\1", " ".join(value.split()))
    return flat.replace("<", "&lt;").replace(">", "&gt;")


def _code(value: str) -> str:
    """Return a name that may be put between backticks."""
    return re.sub(r"[`\s|]+", " ", value)


def needed_packages(spec: ModelSpec, registry: Registry | None = None) -> dict[str, list[tuple[Kind, str]]]:
    """Return package -> (kind, name) of the parts of a bundle that plugins bring.

    Args:
        spec: of the bundle; the sensors it carries need no package.
        registry: what is installed; a part that is not is searched among SimMAT's own plugins, or else left out.
    """
    found: dict[str, list[tuple[Kind, str]]] = {}
    for kind, name in _parts(spec):
        package = _installed_package(kind, name, registry) or known_package(kind, name)
        if package and package != PROJECT:
            found.setdefault(package, []).append((kind, name))
    return dict(sorted(found.items()))


def _parts(spec: ModelSpec) -> Iterator[tuple[Kind, str]]:
    carried = {declaration.name for declaration in spec.described}
    yield from (("modality", part) for part in dict.fromkeys(modality_parts(spec.modality)) if part not in carried)
    yield "foundation model", spec.foundation
    yield "transfer layer", spec.mat
    yield "tuner", spec.tune


def _installed_package(kind: Kind, name: str, registry: Registry | None) -> str:
    """Return the installed distribution that brings a name, or ""."""
    if registry is None:
        return ""
    try:
        package = registry.owner(kind, name).partition(" ")[0]
    except SimMATError:
        return ""
    distributions = {report.distribution for report in registry.reports}
    return package if package in distributions and re.fullmatch(r"[A-Za-z0-9][\w.-]*", package) else ""

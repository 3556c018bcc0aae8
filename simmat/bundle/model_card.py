"""The model card of a bundle: README.md, for people and for the Hugging Face hub.

Its head is the hub's metadata (license, library_name, pipeline_tag, tags); all else is said by the bundle itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from simmat.bundle.document import BundleSpec
from simmat.errors import SimMATError
from simmat.model_spec import ModelSpec, with_options
from simmat.plugins.hooks import PROJECT
from simmat.plugins.registry import Kind, Registry, known_package
from simmat.sensors.names import modality_parts
from simmat.sensors.nodata import describe_nodata
from simmat.sensors.normalize import describe
from simmat.types import Channel

UNSTATED = "unknown"
"""The hub's own word for a licence that nobody has said."""
_KINDS = {"modality": "sensor"}
"""Kinds of parts that people know by another word."""
_ONE_CLICK = "one-click"
"""Protocol of validation where none is stored."""
_SCORES = {
    "miou_object": "mean IoU over objects",
    "miou_image": "mean IoU over images",
    "miou_class": "mean IoU over classes",
    "miou_best_predicted": "mean IoU, best predicted of the alternatives",
    "miou_oracle": "mean IoU, best possible of the alternatives",
    "boundary_iou": "boundary IoU",
}


def model_card(
    spec: BundleSpec,
    *,
    licence: str | None = None,
    foundation_licence: str = "",
    registry: Registry | None = None,
) -> str:
    """Return the card of a bundle, in Markdown behind YAML; the same bundle gives the same text.

    Args:
        spec: what the bundle says of itself.
        licence: of the bundle, as the hub names it ("apache-2.0", "cc-by-4.0", "other").
        foundation_licence: of the foundation model, where known.
        registry: what is installed, by which the packages of plugins are named; None names SimMAT's own.
    """
    parts = [
        _head(spec, licence),
        f"# {_text(spec.modality)} on {_text(spec.foundation)}\n\n"
        "A SimMAT bundle: a transfer layer and tuned weights that bring the sensor "
        f"`{_code(spec.modality)}` to the vision foundation model `{_code(spec.foundation)}`. It answers clicks and "
        "boxes on a sensor image with masks. The frozen weights of the foundation model are not in it.",
        _use(spec, needed_packages(spec, registry)),
        _channels(spec),
        _scores(spec),
        _made(spec),
        _data(spec),
        _licences(spec, licence, foundation_licence),
    ]
    return "\n\n".join(parts) + "\n"


def _head(spec: BundleSpec, licence: str | None) -> str:
    tags = ["simmat", "image-segmentation", *re.split(r"[+]", spec.modality), spec.foundation]
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
    brings = [
        f"`{package}` brings {' and '.join(f'the {_KINDS.get(kind, kind)} `{_code(name)}`' for kind, name in parts)}"
        for package, parts in packages.items()
    ]
    plugins = f"{'; '.join(brings)}. " if brings else ""
    several = len(modality_parts(spec.modality)) > 1  # one file for each
    return (
        "## Use\n\n"
        "```\n"
        f"pip install {' '.join(['simmat', *packages])}\n"
        f"simmat predict BUNDLE {'--source NAME=FILE …' if several else 'IMAGE'} --point X,Y --out OUT\n"
        "simmat eval BUNDLE --data DIR\n"
        "```\n\n"
        f"{plugins}Where a part is missing, the error names it. Input of other channels or units, and other foundation "
        "weights, are refused."
    )


def _channels(spec: BundleSpec) -> str:
    picked = "" if spec.picks is None else f" Of these it sees {_text(', '.join(map(str, spec.picks)))}."
    return (
        "## Channels\n\n"
        f"An image holds {_text(describe(spec.sensor_channels))}.{picked} As they reach the network, with the "
        "statistics they are normalized by:\n\n"
        + _table(
            ("channel", "quantity", "unit", "wavelength, µm", "valid range", "mean", "std"),
            [_channel_row(channel) for channel in spec.channels],
        )
    )


def _channel_row(channel: Channel) -> tuple[str, ...]:
    low_high = "" if channel.valid_range is None else " to ".join(_number(value) for value in channel.valid_range)
    numbers = (channel.wavelength_um, channel.mean, channel.std)
    wavelength, mean, std = ("" if value is None else _number(value) for value in numbers)
    return (channel.name, channel.quantity, channel.unit, wavelength, low_high, mean, std)


def _scores(spec: BundleSpec) -> str:
    found = spec.metrics.get("val")
    scores: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    rows = [
        (title, f"{float(scores[key]):.3f}")
        for key, title in _SCORES.items()
        if isinstance(scores.get(key), int | float)
    ]
    if not rows:
        return "## Scores\n\nNone were stored."
    counts = f"{scores.get('objects', '?')} objects in {scores.get('images', '?')} images"
    protocol = str(spec.metrics.get("protocol", _ONE_CLICK))
    asked = "one click an object, masks compared at the original size"
    if protocol != _ONE_CLICK:
        asked = f"as `simmat eval --protocol {_code(protocol)}` asks and compares"
    return (
        "## Scores\n\n"
        f"On the validation split by which it was chosen (step {_text(str(spec.metrics.get('step', '?')))}; "
        f"{_text(counts)}): {asked}.\n\n" + _table(("score", "value"), rows)
    )


def _made(spec: BundleSpec) -> str:
    source = f"random, seed {spec.seed}" if spec.foundation_sha256 is None else f"sha256 `{spec.foundation_sha256}`"
    rows = [
        ("foundation model", spec.foundation),
        ("its weights", source),
        ("transfer layer", with_options(spec.mat, spec.mat_options)),
        ("tuning", with_options(spec.tune, spec.tune_options)),
        ("input", f"{spec.image_size} px, aspect {spec.aspect}"),
        ("seed", str(spec.seed)),
    ]
    return "## How it was made\n\n" + _table(("", ""), rows)


def _data(spec: BundleSpec) -> str:
    card = spec.card
    rows = [
        ("source", card.source or "not stated"),
        ("licence", card.licence or "not stated"),
        ("a region is", f"{card.regions}, smallest {card.smallest}"),
        ("label value 0", card.zero_means),
        ("no data", "none declared" if card.nodata is None else describe_nodata(card.nodata)),
    ]
    if card.class_names:
        rows.append(("classes", ", ".join(f"{value} {name}" for value, name in sorted(card.class_names.items()))))
    if card.notes:
        rows.append(("notes", card.notes))
    return "## Data\n\n" + _table(("", ""), rows)


def _licences(spec: BundleSpec, licence: str | None, foundation_licence: str) -> str:
    own = f"This bundle: {licence}." if licence else "Nobody has stated a licence of this bundle; ask who made it."
    of_model = f"`{_code(spec.foundation)}`: {_text(foundation_licence or 'see where it comes from')}"
    return (
        f"## Licence\n\n{own} The foundation model it stands on has its own, {of_model}; so have the data, see above."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """Return free text so that it stays text in a Markdown line or cell: no markup, no line breaks."""
    flat = " ".join(str(value).split())
    return re.sub(r"[<>]", lambda found: {"<": "&lt;", ">": "&gt;"}[found[0]], re.sub(r"([\\|*\[\]])", r"\\\1", flat))


def _code(value: str) -> str:
    """Return a name that may stand between backticks."""
    return re.sub(r"[`\s|]+", " ", value)


def _number(value: float) -> str:
    return f"{value:.5g}"


def needed_packages(spec: ModelSpec, registry: Registry | None = None) -> dict[str, list[tuple[Kind, str]]]:
    """Return the package -> the (kind, name) of what it brings, for each part of a bundle that a plugin brings.

    Args:
        spec: what the bundle says of itself; sensors that it describes itself need no package.
        registry: what is installed. A part that is not there is looked up among SimMAT's own plugins, and left out
            where none of them brings it.
    """
    found: dict[str, list[tuple[Kind, str]]] = {}
    for kind, name in _parts(spec):
        package = _installed_package(kind, name, registry) or known_package(kind, name)
        if package and package != PROJECT:
            found.setdefault(package, []).append((kind, name))
    return dict(sorted(found.items()))


def _parts(spec: ModelSpec) -> Iterator[tuple[Kind, str]]:
    described = {declaration.name for declaration in spec.described}
    for part in dict.fromkeys(modality_parts(spec.modality)):
        if part not in described:
            yield "modality", part
    yield "foundation model", spec.foundation
    yield "transfer layer", spec.mat
    yield "tuner", spec.tune


def _installed_package(kind: Kind, name: str, registry: Registry | None) -> str:
    """Return the installed distribution that brings a name, "simmat" for the built-in parts; "" where none does."""
    if registry is None:
        return ""
    try:
        package = registry.owner(kind, name).partition(" ")[0]
    except SimMATError:
        return ""
    distributions = {report.distribution for report in registry.reports}
    return package if package in distributions and re.fullmatch(r"[A-Za-z0-9][\w.-]*", package) else ""

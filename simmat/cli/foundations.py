"""`simmat foundations`: list foundation models, download their weights."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

import click

from simmat.cli import Group
from simmat.cli.options import json_option, load_registry
from simmat.cli.tables import print_json, print_table
from simmat.errors import ConfigError, SimMATError, WeightsError
from simmat.io import weights
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import Registry
from simmat.terminal import echo, move_bar, progress_bar

command = Group()

_LICENCE_NOTE = (
    "\nLICENCE is the licence of the weights; the training images may have other terms. "
    "See the page 'What may be used commercially' of SimMAT's documentation."
)


@command.command("list")
@click.argument("family", required=False)
@click.option(
    "--match",
    metavar="TEXT",
    default="",
    help="List only models with this text in their name.",
)
@click.option(
    "--time",
    "timed",
    is_flag=True,
    help="Measure the time of each model whose weights are on this machine.",
)
@json_option
def list_foundations(
    family: str | None, match: str, timed: bool, as_json: bool
) -> None:
    """List the foundation models, and whether their weights are on this machine.

    A family, such as timm/NAME, stands for all models of a library; give FAMILY to list them.

    RGB MIOU is the mIoU of the untuned model for one click per object on photographs; - if it was not measured. With
    --time, ENCODE is the time to encode an image and CLICK the time for a prompt on it, both at INPUT PX, on the GPU if
    there is one.
    """
    if family is not None and timed:
        raise ConfigError(
            f"--time is for the list without a family; leave {family} out, or --time"
        )
    registry = load_registry()
    if family is not None:
        entries = _models_of_family(family.rstrip("/"), match, registry)
    else:
        entries = _all_models(match, registry, timed=timed)
    if as_json:
        print_json(entries)
        return
    columns = {
        "name": "NAME",
        "image_size": "INPUT PX",
        "weights": "WEIGHTS",
        "size": "SIZE",
        "zero_shot": "RGB MIOU",
    }
    if timed:
        columns |= {"encode_ms": "ENCODE MS", "click_ms": "CLICK MS"}
    columns |= {"licence": "LICENCE", "description": "DESCRIPTION"}
    rows = []
    for entry in entries:
        if entry.get("parameters"):
            entry["size"] = f"{entry['parameters'] / 1e6:.1f} M"
        if entry.get("zero_shot_rgb"):
            entry["zero_shot"] = f"{entry['zero_shot_rgb']:.3f}"
        rows.append([str(entry.get(key) or "-") for key in columns])
    print_table(tuple(columns.values()), rows)
    echo(_LICENCE_NOTE)


def _models_of_family(
    family: str, match: str, registry: Registry
) -> list[dict[str, Any]]:
    """Return name and description of the models of a family whose names contain a text."""
    entries: list[dict[str, Any]] = []
    for name, description in registry.models_of_family(family).items():
        if match in name:
            entries.append({"name": name, "description": description})
    return entries


def _all_models(match: str, registry: Registry, *, timed: bool) -> list[dict[str, Any]]:
    """Return what is known of the models whose names contain a text, and the families if there is no text."""
    entries: list[dict[str, Any]] = []
    for spec in registry.all("foundation model"):
        if match not in spec.name:
            continue
        entry = _as_dict(spec, registry)
        if timed:
            entry |= _times(spec, registry)
        entries.append(entry)
    if not match:
        for one in registry.all("foundation family"):
            owner = registry.owner("foundation family", one.name)
            entries.append(
                {
                    "name": f"{one.name}/NAME",
                    "description": one.description,
                    "from": owner,
                }
            )
    return entries


@command.command("fetch")
@click.argument("name")
def fetch(name: str) -> None:
    """Download the weights of foundation model NAME into the cache, and check them."""
    file = load_registry().foundation(name, fetch=True).weights
    if file is None:
        raise WeightsError(
            f"foundation model {name!r} has no weight file: its weights are random, from a seed"
        )
    if file.hub:
        echo(weights.fetch(file))  # the client of the Hub shows its own progress bar
        return
    with progress_bar(file.filename, "B", unit_scale=True) as bar:
        path = weights.fetch(file, progress=partial(move_bar, bar))
    echo(path)


def _times(spec: FoundationSpec, registry: Registry) -> dict[str, float]:
    """Return milliseconds of an encode and of a click, each the least of three; {} without weights."""
    import numpy as np

    from simmat import load
    from simmat.nn.device import wait_for

    try:
        model = load(foundation=spec.name, modality="rgb", registry=registry)
    except SimMATError:  # not here, random, or not for RGB
        return {}
    side = spec.image_size
    device = next(model.model.parameters()).device
    image = (
        np.random.default_rng(0).integers(0, 256, (3, side, side)).astype(np.float32)
    )
    encode = []
    click = []
    for _ in range(3):
        start = perf_counter()
        model.set_image(image)
        wait_for(device)
        middle = perf_counter()
        model.predict([(side / 2, side / 2)])
        encode.append(middle - start)
        click.append(perf_counter() - middle)
    return {
        "encode_ms": round(1000 * min(encode), 1),
        "click_ms": round(1000 * min(click), 1),
    }


def _as_dict(spec: FoundationSpec, registry: Registry) -> dict[str, Any]:
    size = spec.weights.size_bytes if spec.weights is not None else 0
    try:
        location = weights.find_weights(spec)
        state = "random" if location is None else "here"
    except WeightsError:
        location = None
        state = "to fetch" + (f", {size / 1e6:.0f} MB" if size else "")
    return {
        "name": spec.name,
        "description": spec.description,
        "from": registry.owner("foundation model", spec.name),
        "image_size": spec.image_size,
        "size_multiple": spec.size_multiple,
        "promptable": spec.promptable,
        "parameters": spec.parameters or None,
        "zero_shot_rgb": spec.zero_shot_rgb,
        "licence": spec.licence,
        "weights": state,
        "path": None if location is None else str(location),
        "sha256": spec.weights.sha256 or None if spec.weights is not None else None,
    }

"""`simmat foundations`: which models there are, and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, load_registry, print_json, print_table
from simmat.cli.modalities import print_conflicts
from simmat.foundation import FoundationSpec
from simmat.plugins import Registry


@click.group(cls=Group)
def command() -> None:
    """List foundation models, and fetch their weights."""


@command.command("list")
@json_option
def list_foundations(as_json: bool) -> None:
    """List the foundation models that can be tuned, and where their weights are."""
    registry = load_registry()
    specs = [registry.foundation(name) for name in registry.foundation_names]
    if as_json:
        print_json([_as_dict(spec, registry) for spec in specs])
        return
    print_table(
        ("NAME", "INPUT", "WEIGHTS", "LICENCE", "WHAT IT IS"),
        [(s.name, f"{s.image_size} px", _weights(s), s.licence or "-", s.description) for s in specs],
    )
    print_conflicts(registry, "foundation model")


@command.command("fetch")
@click.argument("name")
def fetch(name: str) -> None:
    """Download the weights of foundation model NAME into the cache, and check them."""
    spec = load_registry().foundation(name)
    click.echo(str(_fetch(spec)))


def _fetch(spec: FoundationSpec) -> Path:
    from tqdm import tqdm

    from simmat.errors import WeightsError
    from simmat.weights import fetch as fetch_weights

    if spec.weights is None:
        raise WeightsError(f"foundation model {spec.name!r} has no weight file: it is random from its seed")
    with tqdm(desc=spec.weights.filename, unit="B", unit_scale=True, unit_divisor=1000, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        return fetch_weights(spec.weights, progress=progress)


def _weights(spec: FoundationSpec) -> str:
    """Say in a word or two where the weights are: "here", "to fetch, 375 MB", "random"."""
    if spec.weights is None:
        return "random"
    if _location(spec) is not None:
        return "here"
    size = spec.weights.size_bytes
    return "to fetch" + (f", {size / 1e6:.0f} MB" if size else "")


def _location(spec: FoundationSpec) -> str | None:
    """Return the path of the weight file, None where it is not here or the model has none."""
    from simmat.errors import WeightsError
    from simmat.weights import find_weights

    try:
        found = find_weights(spec)
    except WeightsError:
        return None
    return str(found) if found is not None else None


def _as_dict(spec: FoundationSpec, registry: Registry) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "from": registry.owner("foundation model", spec.name),
        "image_size": spec.image_size,
        "size_multiple": spec.size_multiple,
        "promptable": spec.promptable,
        "licence": spec.licence,
        "weights": _weights(spec),
        "path": _location(spec),
        "sha256": spec.weights.sha256 if spec.weights is not None else None,
    }

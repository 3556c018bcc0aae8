"""`simmat foundations`: list foundation models, download their weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from simmat.cli import Group
from simmat.cli.common import (
    json_option,
    load_registry,
    move_bar,
    print_conflicts,
    print_json,
    print_table,
    progress_bar,
)
from simmat.plugin_specs import FoundationFamily, FoundationSpec
from simmat.plugins.registry import Registry
from simmat.terminal import say


@click.group(cls=Group)
def command() -> None:
    """List foundation models and download their weights."""


@command.command("list")
@click.argument("family", required=False)
@click.option("--match", metavar="TEXT", default="", help="List only models with this text in their name.")
@json_option
def list_foundations(family: str | None, match: str, as_json: bool) -> None:
    """List the foundation models, and whether their weights are on this machine.

    A family, such as timm/NAME, stands for all models of a library; give FAMILY to list them.
    """
    registry = load_registry()
    if family is not None:
        _list_family(registry.foundation_family(family.rstrip("/")), match, as_json)
        return
    specs = [registry.foundation(name) for name in registry.names("foundation model") if match in name]
    families = [] if match else [registry.foundation_family(name) for name in registry.names("foundation family")]
    if as_json:
        print_json([*(_as_dict(spec, registry) for spec in specs), *(_family_dict(f, registry) for f in families)])
        return
    rows = [(s.name, f"{s.image_size} px", _weights(s), s.licence or "-", s.description) for s in specs]
    rows += [(f"{f.name}/NAME", "-", "-", "-", f"{f.description}; simmat foundations list {f.name}/") for f in families]
    print_table(("NAME", "INPUT", "WEIGHTS", "LICENCE", "DESCRIPTION"), rows)
    print_conflicts(registry, "foundation model", "foundation family")


def _list_family(family: FoundationFamily, match: str, as_json: bool) -> None:
    listed = family.list_models()
    chosen = {name: description for name, description in listed.items() if match in name}
    if as_json:
        print_json([{"name": name, "description": description} for name, description in chosen.items()])
    elif chosen:
        print_table(("NAME", "DESCRIPTION"), list(chosen.items()))
    else:
        say(f"none of the {len(listed)} models of {family.name}/ has {match!r} in its name", err=True)


@command.command("fetch")
@click.argument("name")
def fetch(name: str) -> None:
    """Download the weights of foundation model NAME into the cache, and check them."""
    from simmat.errors import WeightsError
    from simmat.io import weights

    file = load_registry().foundation(name, fetch=True).weights
    if file is None:
        raise WeightsError(f"foundation model {name!r} has no weight file: its weights are random, from a seed")
    if file.hub:
        say(weights.fetch(file))  # the client of the Hub shows its own progress bar
        return
    with progress_bar(file.filename, "B", unit_scale=True) as bar:
        path = weights.fetch(file, progress=partial(move_bar, bar))
    say(path)


def _weights(spec: FoundationSpec) -> str:
    """Return the state of the weights: "here", "to fetch, 375 MB" or "random"."""
    if spec.weights is None:
        return "random"
    if _location(spec) is not None:
        return "here"
    size = spec.weights.size_bytes
    return "to fetch" + (f", {size / 1e6:.0f} MB" if size else "")


def _location(spec: FoundationSpec) -> Path | None:
    from simmat.errors import WeightsError
    from simmat.io.weights import find_weights

    try:
        return find_weights(spec)
    except WeightsError:
        return None


def _family_dict(family: FoundationFamily, registry: Registry) -> dict[str, Any]:
    return {
        "name": f"{family.name}/NAME",
        "description": family.description,
        "from": registry.owner("foundation family", family.name),
    }


def _as_dict(spec: FoundationSpec, registry: Registry) -> dict[str, Any]:
    location = _location(spec)
    return {
        "name": spec.name,
        "description": spec.description,
        "from": registry.owner("foundation model", spec.name),
        "image_size": spec.image_size,
        "size_multiple": spec.size_multiple,
        "promptable": spec.promptable,
        "licence": spec.licence,
        "weights": _weights(spec),
        "path": None if location is None else str(location),
        "sha256": spec.weights.sha256 or None if spec.weights is not None else None,
    }

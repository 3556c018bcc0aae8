"""`simmat foundations`: which models there are, and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simmat.cli import Group
from simmat.cli.common import json_option, load_registry, print_json, print_table
from simmat.cli.modalities import print_conflicts
from simmat.plugins.registry import Registry
from simmat.specs import FoundationFamily, FoundationSpec
from simmat.terminal import escape, say


@click.group(cls=Group)
def command() -> None:
    """List foundation models, and fetch their weights."""


@command.command("list")
@click.argument("family", required=False)
@click.option("--match", metavar="TEXT", help="Only the models with this text in their name.")
@json_option
def list_foundations(family: str | None, match: str | None, as_json: bool) -> None:
    """List the foundation models that can be tuned, and where their weights are.

    A family, such as timm/NAME, stands for all the models of a library; with FAMILY, these are listed.
    """
    registry = load_registry()
    if family is not None:
        _list_family(registry, family.rstrip("/"), match or "", as_json)
        return
    names = [name for name in registry.foundation_names if (match or "") in name]
    specs = [registry.foundation(name) for name in names]
    families = [] if match else [registry.foundation_family(name) for name in registry.foundation_family_names]
    if as_json:
        print_json([*(_as_dict(spec, registry) for spec in specs), *(_family_dict(f, registry) for f in families)])
        return
    print_table(
        ("NAME", "INPUT", "WEIGHTS", "LICENCE", "WHAT IT IS"),
        [
            *((s.name, f"{s.image_size} px", _weights(s), s.licence or "-", s.description) for s in specs),
            *((f"{f.name}/NAME", "-", "-", "-", _family_line(f)) for f in families),
        ],
    )
    print_conflicts(registry, "foundation model")
    print_conflicts(registry, "foundation family")


def _family_line(family: FoundationFamily) -> str:
    return f"{family.description}; simmat foundations list {family.name}/"


def _list_family(registry: Registry, name: str, match: str, as_json: bool) -> None:
    listed = registry.foundation_family(name).list_models()
    chosen = {model: line for model, line in listed.items() if match in model}
    if as_json:
        print_json([{"name": model, "description": line} for model, line in chosen.items()])
    elif chosen:
        print_table(("NAME", "WHAT IT IS"), list(chosen.items()))
    else:
        say(f"none of the {len(listed)} models of {name}/ has {match!r} in its name", err=True)


@command.command("fetch")
@click.argument("name")
def fetch(name: str) -> None:
    """Download the weights of foundation model NAME into the cache, and check them."""
    spec = load_registry().foundation(name)
    say(str(_fetch(spec)))


def _fetch(spec: FoundationSpec) -> Path:
    from tqdm import tqdm

    from simmat.errors import WeightsError
    from simmat.io.weights import fetch as fetch_weights

    if spec.weights is None:
        raise WeightsError(f"foundation model {spec.name!r} has no weight file: it is random from its seed")
    if spec.weights.hub:
        return fetch_weights(spec.weights)  # the Hub's client shows a bar of its own
    with tqdm(desc=escape(spec.weights.filename), unit="B", unit_scale=True, unit_divisor=1000, leave=False) as bar:

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
    from simmat.io.weights import find_weights

    try:
        found = find_weights(spec)
    except WeightsError:
        return None
    return str(found) if found is not None else None


def _family_dict(family: FoundationFamily, registry: Registry) -> dict[str, Any]:
    return {
        "name": f"{family.name}/NAME",
        "description": family.description,
        "from": registry.owner("foundation family", family.name),
    }


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
        "sha256": spec.weights.sha256 or None if spec.weights is not None else None,
    }

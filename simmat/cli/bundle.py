"""`simmat bundle`: show, share and fetch bundles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import PATH, channel_cells, json_option, load_registry, print_json, print_table
from simmat.cli.modalities import print_declarations
from simmat.data.card import class_title
from simmat.errors import SimMATError
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.bundle import BundleSpec

_MAX_DEPTH = 3
"""Depth of the metrics that training writes, such as val, by_size, small."""


@click.group(cls=Group)
def command() -> None:
    """Show, share and fetch bundles."""


@command.command("show")
@click.argument("bundle", type=PATH)
@json_option
def show(bundle: Path, as_json: bool) -> None:
    """Show the sensor, network, data and scores of BUNDLE."""
    from simmat.bundle import read_bundle_spec
    from simmat.bundle.model_card import data_rows, network_rows

    spec = read_bundle_spec(bundle)
    if as_json:
        print_json(spec.model_dump(mode="json"))
        return
    print_table(("", str(bundle)), network_rows(spec))
    say()
    found = spec.statistics
    print_table(
        ("CHANNEL", "QUANTITY", "UNIT", "WAVELENGTH", "VALID RANGE", "MEAN", "STD", "TRAINING SPLIT"),
        [
            (
                *channel_cells(channel),
                *("-" if value is None else f"{value:.5g}" for value in (channel.mean, channel.std)),
                f"mean {mean:.5g}, std {std:.5g}, {pixels:,} valid pixels",
            )
            for channel, mean, std, pixels in zip(spec.channels, found.mean, found.std, found.pixels, strict=True)
        ],
    )
    if spec.described:
        say()
        print_declarations(spec.described)
    say()
    print_table(("DATA CARD", ""), data_rows(spec.card))
    if rows := list(_metric_rows(spec)):
        say()
        print_table(("METRIC", "VALUE"), rows)


def _metric_rows(spec: BundleSpec) -> Iterator[tuple[str, str]]:
    """Yield name and value of each stored metric; the name contains the keys of all its tables."""
    for path, value in _flat(spec.metrics):
        words = list(path)
        if words[-2:-1] == ["iou_by_class"] and re.fullmatch(r"-?[0-9]{1,19}", words[-1]):
            words[-1] = class_title(int(words[-1]), spec.card.class_names)
        yield " ".join(words), _plain(value)


def _flat(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (keys, value) of nested tables; tables deeper than `_MAX_DEPTH` are one value."""
    for key, value in values.items():
        if isinstance(value, dict) and len(path) < _MAX_DEPTH:
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def _plain(value: Any) -> str:
    """Return a json value as readable text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_plain(entry) for entry in value)
    return value if isinstance(value, str) else json.dumps(value)


@command.command("push")
@click.argument("bundle", type=PATH)
@click.argument("destination")
@click.option(
    "--licence",
    "--license",
    metavar="NAME",
    help="Licence of the bundle, as the hub names it: apache-2.0, cc-by-4.0, other.",
)
@click.option("--private", is_flag=True, help="Make a new repository on the hub private.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def push(bundle: Path, destination: str, licence: str | None, private: bool, force: bool) -> None:
    """Check BUNDLE and copy it, with a model card, to DESTINATION: a folder, a path ending in .zip, or hf://ORG/NAME."""
    from simmat.bundle import push_bundle, read_bundle_spec

    registry = load_registry()
    try:
        foundation_licence = registry.foundation(read_bundle_spec(bundle).foundation).licence
    except SimMATError:  # the plugin is not installed; the model card then omits the licence
        foundation_licence = ""
    where = push_bundle(
        bundle,
        destination,
        licence=licence,
        foundation_licence=foundation_licence,
        registry=registry,
        force=force,
        private=private,
    )
    say(where)
    if licence is None:
        say("note: no licence is stated; give --licence NAME, so that others know what they may do", err=True)


@command.command("pull")
@click.argument("source")
@click.option("--out", type=PATH, help="Folder to make.  [default: the source's name, in the current folder]")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def pull(source: str, out: Path | None, force: bool) -> None:
    """Fetch a bundle into a folder, and check it. SOURCE is a folder, a .zip or hf://ORG/NAME[@REVISION]."""
    from simmat.bundle import pull_bundle

    say(pull_bundle(source, out, force=force))

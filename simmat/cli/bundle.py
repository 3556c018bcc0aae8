"""`simmat bundle`: what training gave and people share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import PATH, json_option, load_registry, print_json, print_table
from simmat.cli.modalities import print_declarations
from simmat.data.card import class_title
from simmat.errors import SimMATError
from simmat.sensors.nodata import describe_nodata
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.bundle import BundleSpec
    from simmat.data.card import DataCard
    from simmat.types import Channel

_DEEPEST = 3
"""Tables in tables of the metrics that training writes: val, by_size, small."""


@click.group(cls=Group)
def command() -> None:
    """Show what a bundle holds, give it away, or fetch one."""


@command.command("show")
@click.argument("bundle", type=PATH)
@json_option
def show(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE was trained for, on and with, and how well it scored."""
    from simmat.bundle import read_bundle_spec

    spec = read_bundle_spec(bundle)
    if as_json:
        print_json(spec.model_dump(mode="json"))
        return
    print_table(("", str(bundle)), _network_rows(spec))
    say()
    found = spec.statistics
    print_table(
        ("CHANNEL", "QUANTITY", "UNIT", "WAVELENGTH", "VALID RANGE", "MEAN", "STD", "TRAINING SPLIT"),
        [_channel_row(*row) for row in zip(spec.channels, found.mean, found.std, found.pixels, strict=True)],
    )
    if spec.described:
        say()
        print_declarations(spec.described)
    say()
    print_table(("DATA CARD", ""), _card_rows(spec.card))
    if rows := list(_metric_rows(spec)):
        say()
        print_table(("METRIC", "VALUE"), rows)


@command.command("push")
@click.argument("bundle", type=PATH)
@click.argument("destination")
@click.option(
    "--licence", "--license", metavar="NAME", help="Of the bundle, as the hub writes it: apache-2.0, cc-by-4.0, other."
)
@click.option("--private", is_flag=True, help="Make a new repository on the hub private.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
def push(bundle: Path, destination: str, licence: str | None, private: bool, force: bool) -> None:
    """Check BUNDLE and copy it, with a model card, to DESTINATION: a folder, a path ending in .zip, or hf://ORG/NAME."""
    from simmat.bundle import push_bundle, read_bundle_spec

    known = load_registry()
    name = read_bundle_spec(bundle).foundation
    try:
        foundation_licence = known.foundation(name).licence
    except SimMATError:  # its plugin is not installed here: the card then says nothing of it
        foundation_licence = ""
    where = push_bundle(
        bundle,
        destination,
        licence=licence,
        foundation_licence=foundation_licence,
        registry=known,
        force=force,
        private=private,
    )
    say(where)
    if licence is None:
        say("note: no licence is stated; say --licence NAME, so that others know what they may do", err=True)


@command.command("pull")
@click.argument("source")
@click.option("--out", type=PATH, help="Folder to make.  [default: the source's name, here]")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
def pull(source: str, out: Path | None, force: bool) -> None:
    """Fetch a bundle from SOURCE, a folder, a .zip or hf://ORG/NAME[@REVISION], check it and make a folder of it."""
    from simmat.bundle import pull_bundle

    say(pull_bundle(source, out, force=force))


def _network_rows(spec: BundleSpec) -> list[tuple[str, str]]:
    source = f"weights sha256 {spec.foundation_sha256}" if spec.foundation_sha256 else f"random from seed {spec.seed}"
    return [
        ("modality", spec.modality + (f", channels {_list(spec.picks)}" if spec.picks is not None else "")),
        *(("described here", declared.name) for declared in spec.described),
        ("foundation", f"{spec.foundation}, {source}"),
        ("input", f"{spec.image_size} px, aspect {spec.aspect}"),
        ("transfer layer", "\n".join([spec.mat, *_option_lines(spec.mat_options)])),
        ("tuning", "\n".join([spec.tune, *_option_lines(spec.tune_options)])),
    ]


def _option_lines(options: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} = {value if isinstance(value, str) else json.dumps(value)}" for key, value in sorted(options.items())
    ]


def _channel_row(channel: Channel, mean: float, std: float, pixels: int) -> tuple[str, ...]:
    """Return the channel with the mean and std it is normalized by, and those of the pixels it was trained on."""
    return (
        channel.name,
        channel.quantity,
        channel.unit,
        "-" if channel.wavelength_um is None else f"{channel.wavelength_um:g} um",
        "any" if channel.valid_range is None else "{:g} to {:g}".format(*channel.valid_range),
        _number(channel.mean),
        _number(channel.std),
        f"mean {_number(mean)}, std {_number(std)}, {pixels:,} valid pixels",
    )


def _card_rows(card: DataCard) -> list[tuple[str, str]]:
    rows = [
        ("regions", f"{card.regions}, smallest {card.smallest}"),
        ("label value 0", card.zero_means),
        ("ignored label value", "none" if card.ignore is None else str(card.ignore)),
        ("no data", "none declared" if card.nodata is None else describe_nodata(card.nodata)),
        ("classes", "\n".join(f"{number}: {name}" for number, name in sorted(card.class_names.items())) or "no names"),
    ]
    if card.intrinsics is not None:
        rows.append(("camera", ", ".join(f"{key} = {value:g} px" for key, value in sorted(card.intrinsics.items()))))
    given = (("source", card.source), ("licence", card.licence), ("notes", card.notes))
    return rows + [(title, text) for title, text in given if text]


def _metric_rows(spec: BundleSpec) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each stored figure, those of tables in tables with a name of several words."""
    names = spec.card.class_names
    for path, value in _flat(dict(spec.metrics)):
        words = list(path)
        if words[-2:-1] == ["iou_by_class"] and _is_class(words[-1]):
            words[-1] = class_title(int(words[-1]), names)
        yield " ".join(words), _plain(value)


def _flat(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (keys, value) of all that is in tables in tables, as deep as training writes them; deeper ones whole."""
    for key, value in values.items():
        if isinstance(value, dict) and len(path) < _DEEPEST:
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def _is_class(key: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,19}", key) is not None


def _plain(value: Any) -> str:
    """Return a json value as text for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return value if isinstance(value, str) else json.dumps(value)


def _list(values: tuple[str | int, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"

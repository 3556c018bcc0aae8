"""`simmat bundle`: what training gave and people share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simmat.cli import Group
from simmat.cli.common import PATH, json_option, load_registry, print_json, print_table
from simmat.errors import SimMATError
from simmat.nodata import describe_nodata
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.bundle import BundleSpec
    from simmat.declared import Declaration


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
        print_json(spec.to_dict())
        return
    print_table(("", str(bundle)), _rows(spec))
    say()
    print_table(
        ("CHANNEL", "QUANTITY", "UNIT", "MEAN", "STD"),
        [(c.name, c.quantity, c.unit, _number(c.mean), _number(c.std)) for c in spec.channels],
    )


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


def _rows(spec: BundleSpec) -> list[tuple[str, str]]:
    from simmat.bundle.spec import with_options

    card = spec.card
    source = f"weights sha256 {spec.foundation_sha256}" if spec.foundation_sha256 else f"random from seed {spec.seed}"
    rows = [
        ("modality", spec.modality + (f", channels {_list(spec.picks)}" if spec.picks is not None else "")),
        *(("described here", f"{declared.name}: {_described(declared)}") for declared in spec.described),
        ("foundation", f"{spec.foundation}, {source}"),
        ("input", f"{spec.image_size} px, aspect {spec.aspect}"),
        ("transfer layer", with_options(spec.mat, spec.mat_options)),
        ("tuning", with_options(spec.tune, spec.tune_options)),
        ("regions", f"{card.regions}, smallest {card.smallest}, label value 0: {card.zero_means}"),
        ("no data", "none declared" if card.nodata is None else describe_nodata(card.nodata)),
    ]
    return rows + [(f"metric: {name}", str(value)) for name, value in spec.metrics.items()]


def _described(declaration: Declaration) -> str:
    """Say which planes of which files a described sensor takes, and what the network gets of them."""
    files = {source.name: " ".join(source.files) for source in declaration.source}
    return ", ".join(
        f"{rule.name} = {'' if rule.index is None else f'plane {rule.index} of '}{files[declaration.source_of(rule)]} "
        f"({rule.normalize.kind})"
        for rule in declaration.channel
    )


def _list(values: tuple[str | int, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"

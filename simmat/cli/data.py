"""`simmat data`: check a data set before hours of training depend on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.common import PATH, json_option, load_registry, print_json, progress_bar
from simmat.cli.options import data_options, sensor_options
from simmat.errors import ConfigError
from simmat.io.files import atomic_path
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.data.card import DataCard


@click.group(cls=Group)
def command() -> None:
    """Check or make a data set."""


@command.command("check")
@click.argument("data", metavar="DIR", type=PATH)
@sensor_options
@data_options
@click.option("--write-card", is_flag=True, help="Save these options in the data set's card.toml.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    /,
    data: Path,
    modality: str,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    write_card: bool,
    as_json: bool,
    **card: Any,
) -> None:
    """Read every file of the data set in DIR, and report its content and its problems.

    The exit code is 2 if a problem would stop training or scoring.
    """
    from simmat.data.checks import check_dataset
    from simmat.data.dataset import open_dataset

    adapter = load_registry().modality(modality, modality_options, channels=channels)
    dataset = open_dataset(data, adapter, card)
    with progress_bar("reading", " samples", total=len(dataset.samples)) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        report = check_dataset(dataset, advance)
    if as_json:
        print_json(report.to_dict())
    else:
        say(report.text())
    if write_card:
        say(_write_card(dataset.root, dataset.card), err=True)
    if report.problems:
        ctx.exit(2)


def _write_card(root: Path, card: DataCard) -> str:
    """Write a card that says anything new; the former one, which may hold comments, is kept as card.toml.old."""
    from simmat.data.card import CARD_FILE, load_card, write_card

    path = root / CARD_FILE
    if not path.exists():
        return f"wrote {write_card(root, card)}"
    try:
        former = load_card(root, {})
    except ConfigError:
        former = None
    if former == card:
        return f"{path} is up to date"
    with atomic_path(root / f"{CARD_FILE}.old") as kept:
        shutil.copyfile(path, kept)
    return f"wrote {write_card(root, card)}; the former one is {path.name}.old"

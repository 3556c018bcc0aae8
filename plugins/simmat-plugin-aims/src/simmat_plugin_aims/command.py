"""`simmat data index`: write a data set folder that links to a published data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simmat.cli.common import PATH
from simmat.cli.options import data_options
from simmat.terminal import say

_MAX_LISTED = 10


@click.command("data index")
@click.argument("layout")
@click.argument("data", metavar="DIR", type=PATH)
@click.option(
    "--out",
    type=PATH,
    metavar="FOLDER",
    help="A new or empty folder.  [default: DIR-simmat, next to DIR]",
)
@click.option("--skip-missing", is_flag=True, help="Leave out samples with missing files.")
@data_options
def command(layout: str, data: Path, out: Path | None, skip_missing: bool, **card: Any) -> None:
    """Write a folder with manifest.csv and card.toml for the published data set in DIR, which is not changed.

    LAYOUT is ivrg-nir, rgb-thermal-glass, nyudv2, rgbp-glass (pgsnet) or zju-rgbp, as the AIMS benchmark has them; see
    docs/benchmark-data.md. The new folder holds a link to DIR and is ready for `simmat data check`, train and eval.
    """
    from simmat_plugin_aims.index import index_layout
    from simmat_plugin_aims.layouts import find_layout

    index = index_layout(find_layout(layout), data, out, card=card, skip_missing=skip_missing)
    counts = ", ".join(f"{count} {split}" for split, count in index.counts.items())
    say(f"wrote {index.folder}: {sum(index.counts.values())} samples ({counts})")
    for note in index.notes:
        say(note, err=True)
    if index.left_out:
        more = [f"and {len(index.left_out) - _MAX_LISTED} more"] if len(index.left_out) > _MAX_LISTED else []
        say("\n  - ".join([f"left out: {len(index.left_out)}", *index.left_out[:_MAX_LISTED], *more]), err=True)
    say(f"next: simmat data check {index.folder} --modality {index.modalities[0]}", err=True)
    say(f"sensors: {', '.join(index.modalities)}", err=True)

"""`simmat data index`: write a data set folder that links to a published data set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from simmat.cli.options import PATH, data_options
from simmat.data.samples import SPLITS
from simmat.terminal import echo

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
@click.option(
    "--skip-missing", is_flag=True, help="Leave out samples with missing files."
)
@data_options
def command(
    layout: str, data: Path, out: Path | None, skip_missing: bool, **card: Any
) -> None:
    """Write a folder with manifest.csv and card.toml for the published data set in DIR, which is not changed.

    LAYOUT is ivrg-nir, rgb-thermal-glass, nyudv2, rgbp-glass (pgsnet) or zju-rgbp, as the AIMS benchmark has them; see
    the page "The paper's data" of SimMAT's documentation. The new folder holds a link to DIR and is ready for `simmat
    data check`, train and eval.
    """
    from simmat_plugin_aims.index import index_layout
    from simmat_plugin_aims.layouts import find_layout

    folder, found = index_layout(
        layout, data, out, card=card, skip_missing=skip_missing
    )
    counts = Counter(sample.split for sample in found.samples)
    listed = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
    echo(f"wrote {folder}: {counts.total()} samples ({listed})")
    for note in found.notes:
        echo(note, err=True)
    if left_out := [*found.excluded, *found.missing]:
        more = (
            [f"and {len(left_out) - _MAX_LISTED} more"]
            if len(left_out) > _MAX_LISTED
            else []
        )
        echo(
            "\n  - ".join(
                [f"left out: {len(left_out)}", *left_out[:_MAX_LISTED], *more]
            ),
            err=True,
        )
    modalities = find_layout(layout)[1].modalities
    echo(f"next: simmat data check {folder} --modality {modalities[0]}", err=True)
    echo(f"sensors: {', '.join(modalities)}", err=True)

"""`simmat align`: estimate where the images of further sensors lie on those of the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from simmat.cli.options import PATH, config_options, json_option, load_registry
from simmat.errors import OutputError
from simmat.io.files import check_writable
from simmat.terminal import echo, progress_bar


@click.command("align")
@click.argument("data", metavar="DIR", type=PATH)
@config_options("modality", "modality_options", required=("modality",))
@click.option(
    "--each",
    is_flag=True,
    help="Estimate a matrix for each pair: the cameras move against each other, or their images differ in size.",
)
@click.option(
    "--pairs",
    "count",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Pairs that are used for a rig, evenly spaced.",
)
@click.option(
    "--page",
    type=PATH,
    metavar="FILE",
    help="The page with pictures before and after.  [default: DIR/alignment.html]",
)
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@json_option
def command(
    data: Path,
    modality: str,
    modality_options: dict[str, Any] | None,
    each: bool,
    count: int,
    page: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Estimate where the images of further sensors lie on those of the first, and state it in the card of DIR.

    Training, evaluation and prediction then bring all sensors onto the pixel grid of the first. It finds shifts of up
    to 30 % of a side, rotations of up to 8 degrees, and fields of view of 0.6 to 1.7 times the size, or as much around
    what the cameras' tags say. The sensors may be the files per band of a sensor.toml. The card keeps the options of
    the sensors, too.
    """
    from simmat_plugin_align.align import (
        align_each,
        align_rig,
        kept_matrices,
        write_matrices,
    )
    from simmat_plugin_align.page import write_page
    from simmat_plugin_align.pairs import open_rig, write_alignments

    page = page or data / "alignment.html"
    rig = open_rig(data, load_registry().modality(modality, modality_options))
    if page.is_dir():
        raise OutputError(f"{page} is a folder; give the name of a file in it")
    kept = kept_matrices(rig) if each else {}
    if not dry_run:
        check_writable(page.absolute().parent)
        check_writable(data)
    total = len(rig.samples) if each else min(count, len(rig.samples))
    total *= len(rig.cameras) - 1
    with progress_bar("reading pairs", "", total=total) as bar:
        if each:
            results = align_each(rig, bar.update)
        else:
            results = align_rig(rig, count, bar.update)
    if not dry_run:
        write_page(page, results)
        if each:
            write_matrices(results, kept)
        found = {one.source: one.fields() for one in results}
        write_alignments(data, found, rig.options)
    if as_json:
        document = {
            "reference": rig.cameras[0].source,
            "sources": {one.source: one.document() for one in results},
        }
        echo(json.dumps(document, indent=2))
        return
    for result in results:
        echo(result.text())
    if not dry_run:
        what = "the alignment"
        if modality_options:
            what += " and the options of the sensors"
        echo(f"wrote {what} to {data / 'card.toml'}, pictures to {page}")

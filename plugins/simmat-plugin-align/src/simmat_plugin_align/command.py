"""`simmat align`: estimate where the images of further sensors lie on those of the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from simmat.cli.options import PATH, config_options, json_option, load_registry
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
    what the cameras' tags say. The sensors may be the files per band of a sensor.toml.
    """
    from simmat_plugin_align.align import align_each, align_rig, write_matrices
    from simmat_plugin_align.page import write_page
    from simmat_plugin_align.pairs import open_rig, write_alignments

    rig = open_rig(data, load_registry().modality(modality, modality_options))
    total = len(rig.samples) if each else min(count, len(rig.samples))
    total *= len(rig.cameras) - 1
    with progress_bar("reading pairs", "", total=total) as bar:
        if each:
            results = align_each(rig, bar.update)
        else:
            results = align_rig(rig, count, bar.update)
    if not dry_run:
        write_matrices(results)
        write_alignments(data, {one.source: one.fields() for one in results})
        page = write_page(page or data / "alignment.html", results)
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
        echo(f"wrote the alignment to {data / 'card.toml'}, pictures to {page}")

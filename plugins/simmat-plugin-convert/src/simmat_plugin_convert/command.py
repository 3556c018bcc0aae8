"""`simmat data convert`: convert labels to another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.options import PATH, config_options, data_options, load_registry
from simmat.terminal import echo, progress_bar

if TYPE_CHECKING:
    from simmat.types import RegionRule
    from simmat_plugin_convert.writers import Images

FORMATS = ("masks", "coco", "labelme", "yolo", "cvat", "label-studio")


@click.command("data convert")
@click.argument("data", metavar="DIR", type=PATH)
@click.option(
    "--to", "to", required=True, type=click.Choice(FORMATS), help="The format to write."
)
@click.option(
    "--from",
    "kind",
    type=click.Choice(FORMATS),
    help="The format of DIR; by default found from its files.",
)
@click.option(
    "--out", required=True, type=PATH, metavar="DIR", help="A new or empty folder."
)
@config_options("modality", "modality_options")
@data_options
@click.option(
    "--images",
    default="copy",
    show_default=True,
    type=click.Choice(["copy", "link", "none"]),
    help="Copy image files unchanged, link them, or write labels only.",
)
@click.option(
    "--to-regions",
    type=click.Choice(["instances", "classes", "components", "panoptic"]),
    help="What a value of the new masks means, for --to masks; by default a rule that loses nothing.",
)
@click.option(
    "--polygons",
    is_flag=True,
    help="Write outlines, which can be edited by hand, instead of masks: for COCO, LabelMe, CVAT and Label Studio.",
)
@click.option(
    "--boxes",
    is_flag=True,
    help="Read boxes as filled rectangles; otherwise they are left out, because they are not masks.",
)
@click.option(
    "--lossy", is_flag=True, help="Convert even if the format cannot store everything."
)
def command(
    data: Path,
    to: str,
    kind: str | None,
    out: Path,
    modality: str | None,
    modality_options: dict[str, Any] | None,
    images: Images,
    to_regions: RegionRule | None,
    polygons: bool,
    boxes: bool,
    lossy: bool,
    **card: Any,
) -> None:
    """Write the labels of DIR, and its unchanged images, in another format.

    If the format cannot store everything, nothing is written and the losses are listed; --lossy converts anyway.
    --modality names the sensor of the images (default: raster). Images whose labels a model made stay listed in
    predicted.csv.
    """
    from simmat_plugin_convert.convert import convert

    adapter = load_registry().modality(modality or "raster", modality_options)
    with progress_bar("converting", " images") as bar:
        done = convert(
            data,
            out,
            adapter,
            to,
            kind,
            card,
            images=images,
            regions=to_regions,
            polygons=polygons,
            boxes=boxes,
            lossy=lossy,
            progress=bar.update,
        )
    for line in done.notes:
        echo(f"warning: {line}", err=True)
    echo(
        f"wrote {done.images} images with {done.objects} objects as {to} to {out} (read as {done.kind})"
    )

"""`simmat data convert`: the same labels in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.common import PATH, load_registry, progress_bar
from simmat.cli.options import config_options, data_options
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.types import RegionRule
    from simmat_plugin_convert.writers import Images

FORMATS = ("masks", "coco", "labelme", "yolo", "cvat")


@click.command("data convert")
@click.argument("data", metavar="DIR", type=PATH)
@click.option("--to", "to", required=True, type=click.Choice(FORMATS), help="The format to write.")
@click.option("--from", "kind", type=click.Choice(FORMATS), help="The format of DIR; found by its files if left out.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="A new or empty folder.")
@config_options("modality", "modality_options")
@data_options
@click.option(
    "--images",
    default="copy",
    show_default=True,
    type=click.Choice(["copy", "link", "none"]),
    help="Copy image files as they are, link them, or write labels alone.",
)
@click.option(
    "--to-regions",
    type=click.Choice(["instances", "classes", "components", "panoptic"]),
    help="What a value of the new masks is, for --to masks; left out, what loses nothing.",
)
@click.option("--polygons", is_flag=True, help="Outlines in COCO, LabelMe and CVAT, which people can drag, not masks.")
@click.option("--lossy", is_flag=True, help="Convert even if the format cannot hold everything.")
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
    lossy: bool,
    **card: Any,
) -> None:
    """Write the labels of DIR, and its images as they are, in another format.

    Where the format cannot hold something, nothing is written, and what would be lost is said; --lossy writes it
    all the same. --modality says which sensor the images are of (default: raster).
    """
    from simmat_plugin_convert.convert import convert

    adapter = load_registry().modality(modality or "raster", modality_options)
    with progress_bar("converting", " images") as bar:

        def advance() -> None:
            bar.update(1)

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
            lossy=lossy,
            progress=advance,
        )
    for line in done.notes:
        say(f"warning: {line}", err=True)
    say(f"wrote {done.images} images with {done.objects} objects as {to} to {out} (read as {done.kind})")

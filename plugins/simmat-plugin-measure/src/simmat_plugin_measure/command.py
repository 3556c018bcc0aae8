"""`simmat measure`: measure the objects of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from simmat.cli import ended_by_sigterm
from simmat.cli.options import (
    PATH,
    FiniteRange,
    card_option,
    config_options,
    load_registry,
    source_option,
)
from simmat.errors import ConfigError
from simmat.sensors.adapter import with_data_card
from simmat.terminal import echo
from simmat.types import RegionRule


@click.command("measure")
@click.argument("images", nargs=-1, type=PATH, metavar="IMAGE...")
@click.option(
    "--mask",
    "masks",
    required=True,
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Mask of the image, 0 for background; with several images, one for each in the same order.",
)
@config_options("modality", "modality_options", "channels", required=("modality",))
@source_option("File of a source, for a sensor with several sources.")
@click.option(
    "--regions",
    type=click.Choice(get_args(RegionRule)),
    default="instances",
    show_default=True,
    help="What an object is: all pixels of a value, or each connected piece (components).",
)
@card_option()
@click.option(
    "--pixel-size-um",
    type=FiniteRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Side of a pixel in µm, for measured areas in µm²; by default as the file states it.",
)
@click.option(
    "--out", required=True, type=PATH, metavar="FILE.csv", help="The table to write."
)
def command(
    images: tuple[Path, ...],
    masks: tuple[Path, ...],
    modality: str,
    modality_options: dict[str, Any] | None,
    channels: Sequence[str | int] | None,
    source: Mapping[str, Path],
    regions: RegionRule,
    data: Path | None,
    pixel_size_um: float | None,
    out: Path,
) -> None:
    """Measure the objects of masks, and write a table with a row for each object.

    It has the mean, standard deviation, minimum, maximum, median, 5th and 95th percentile of each channel in its unit,
    the contrast to a ring around the object, and area, centroid, box and shape. Pixels that are not valid do not count.
    """
    from simmat.data.card import card_of_files
    from simmat_plugin_measure.measured_masks import measure_masks

    if bool(images) == bool(source):
        raise ConfigError("give either IMAGE or --source NAME=FILE")
    adapter = load_registry().modality(modality, modality_options)
    if data is not None:
        adapter = with_data_card(adapter, card_of_files(data).model_dump())
    names = adapter.source_names()
    files: list[Mapping[str, Path]] = [{names[0]: image} for image in images]
    if source:
        files = [source]
    missing = ", ".join(sorted(set(names) ^ set(files[0])))
    if missing:
        raise ConfigError(
            f"modality {modality!r} has the sources {', '.join(names)}, got {', '.join(files[0])}; give each as "
            "--source NAME=FILE"
        )
    with ended_by_sigterm():
        count = measure_masks(
            adapter,
            files,
            masks,
            out,
            regions=regions,
            pixel_size_um=pixel_size_um,
            channels=channels,
            note=lambda text: echo(text, err=True),
        )
    what = "1 object" if count == 1 else f"{count} objects"
    echo(f"{out}  {what} of {'1 image' if len(files) == 1 else f'{len(files)} images'}")

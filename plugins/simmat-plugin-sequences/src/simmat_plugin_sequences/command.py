"""`simmat follow`: follow objects through a video, a time series or a stack from the masks of a few frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from simmat.cli.options import (
    PATH,
    FiniteRange,
    config_options,
    foundation_options,
    load_registry,
    source_option,
)
from simmat.errors import ConfigError
from simmat.plugin_specs import ResultFormat
from simmat.terminal import echo, move_bar, progress_bar


@click.command("follow")
@click.argument("paths", nargs=-1, type=PATH, metavar="[BUNDLE] SEQ")
@config_options("modality", "modality_options", "channels")
@foundation_options
@source_option("Frames of a source, for a sensor with several sources.")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="IMAGE@FRAME",
    help="Label image of a frame; repeatable.",
)
@click.option(
    "--prompts",
    type=PATH,
    metavar="FILE",
    help="Clicks and boxes in frames, a CSV or COCO json.",
)
@click.option("--out", required=True, type=PATH, help="Folder for the results.")
@click.option(
    "--format",
    "formats",
    metavar="LIST",
    help="Files besides the masks: coco, csv, mots, overlay, volume.",
)
@click.option(
    "--measure",
    "measures",
    is_flag=True,
    help="Measure each object in each frame, as objects.csv.",
)
@click.option(
    "--min-score",
    type=FiniteRange(0, 1),
    default=0.8,
    show_default=True,
    metavar="NUMBER",
    help="List frames in which an object scores below this.",
)
@click.option(
    "--axis",
    type=click.Choice(["x", "y", "z"]),
    help="Axis of a volume.  [default: the bundle's, or z]",
)
@click.option(
    "--smooth",
    type=click.IntRange(0),
    default=0,
    metavar="INT",
    help="Smooth the volume over INT slices.",
)
@click.option(
    "--tile",
    type=click.IntRange(32),
    metavar="INT",
    help="Cut frames into windows of this side in pixels.",
)
@config_options("device")
def follow(
    paths: tuple[Path, ...],
    source: Mapping[str, Path],
    masks: tuple[str, ...],
    prompts: Path | None,
    out: Path,
    formats: str | None,
    measures: bool,
    min_score: float,
    axis: str | None,
    smooth: int,
    tile: int | None,
    **loading: Any,
) -> None:
    """Follow the objects of some frames through all frames of SEQ with BUNDLE, without training.

    SEQ is a folder of frames, a multi-page TIFF, npy array, video or volume, or DIR/manifest.csv/SEQUENCE. A label
    image (0: no object; 1, 2, …: objects) shows what to follow; FRAME is the name of a frame or its number from 0.
    Several label images are corrections: objects are followed from each of them on, and blended in between. An object
    missing from a label image is absent from that frame. --prompts has the columns file, object, point, negative and
    box; an object that it does not mention in a frame is tracked there.

    --out gets labels/NAME.png with the ids of the objects, frames.csv with a score for each object of each frame, and
    what --format says: coco.json with track_id, mots/ (class * 1000 + id), overlay.mp4 (.gif without PyAV), and of a
    volume or TIFF volume.nii.gz or .tif. Repeat an interrupted command to resume it; finished frames are skipped.

    BUNDLE is the folder of a run, its bundle.safetensors, hf://ORG/NAME or gallery:NAME. Without BUNDLE, --foundation
    NAME --modality NAME uses the untuned foundation model.
    """
    from simmat.api import load
    from simmat.data.sequence import FrameSequence, frame_files
    from simmat_plugin_sequences.given_masks import read_given_masks
    from simmat_plugin_sequences.job import FollowJob, follow_files
    from simmat_plugin_sequences.track_prompts import predicted_masks, read_label_images
    from simmat_plugin_sequences.tracks import (
        default_formats,
        is_volume,
        named_formats,
        ranges_of,
    )

    bundle, sequence = _bundle_and_sequence(
        paths, source, is_untuned=loading["modality"] is not None
    )
    if not masks and prompts is None:
        raise ConfigError(
            "no object to follow is given; give --mask IMAGE@FRAME, or --prompts FILE"
        )
    registry = load_registry()
    chosen: Sequence[ResultFormat] | None = None
    if formats is not None:
        chosen = named_formats(filter(None, formats.split(",")), registry)
    loading = {
        name: value for name, value in loading.items() if value not in (None, ())
    }
    predictor = load(bundle, registry=registry, **loading)
    stack_axis = axis or predictor.image_loader.card.stack_axis
    frames = FrameSequence.of_frames(
        predictor.adapter, frame_files(predictor.adapter, sequence, stack_axis)
    )
    if axis is not None and not is_volume(frames):
        raise ConfigError(
            f"--axis {axis} is for a volume (NIfTI, DICOM), but the frames are not of a volume; leave it out"
        )
    given = read_given_masks(read_label_images(masks, frames))
    if prompts is not None:
        for frame, own in predicted_masks(predictor, prompts, frames).items():
            given[frame] = own.over(given.get(frame))
    if chosen is None:
        chosen = default_formats(frames, registry)
    if measures:
        table = named_formats(["csv"], registry)
        chosen = tuple(dict.fromkeys((*chosen, *table)))
    if smooth and "volume" not in {one.name for one in chosen}:
        raise ConfigError(
            "--smooth is for the slices of a volume; add --format volume, or leave it out"
        )
    job = FollowJob(frames, given, out, tile, chosen, min_score, smooth)
    with progress_bar("follow", "frame") as bar:
        files = follow_files(
            predictor, job, lambda done, total: move_bar(bar, done, total)
        )
    for file in files.written:
        echo(f"wrote {file}")
    for number, volume in files.tracks.volumes_mm3.items():
        echo(f"object {number}: {volume / 1000:.4g} cm3")
    if files.unsure:
        echo(
            f"look at {len(files.unsure)} of {len(frames)} frames: {ranges_of(frames, files.unsure)}"
        )


def _bundle_and_sequence(
    paths: Sequence[Path], source: Mapping[str, Path], *, is_untuned: bool
) -> tuple[Path | None, Path | Mapping[str, Path]]:
    """Return the bundle, None for an untuned model, and the frames; ConfigError if paths are missing or too many."""
    needed = []
    if not is_untuned:
        needed.append("BUNDLE (or --foundation NAME --modality NAME)")
    if not source:
        needed.append("SEQ (or --source NAME=SEQ)")
    if len(paths) != len(needed):
        got = " ".join(map(str, paths)) or "nothing"
        raise ConfigError(f"give {' and '.join(needed)}; got {got}")
    bundle = None if is_untuned else paths[0]
    return bundle, source or paths[-1]

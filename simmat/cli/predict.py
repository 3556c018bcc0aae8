"""`simmat predict`: segment sensor images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup
from cloup import OptionGroup

from simmat.cli import ended_by_sigterm
from simmat.cli.options import (
    PATH,
    Command,
    card_option,
    config_options,
    foundation_options,
    load_registry,
    source_option,
)
from simmat.errors import ConfigError, SimMATError, all_problems
from simmat.inference import ImageOutcome, PredictOptions, Progress
from simmat.terminal import echo, move_bar, progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm


_FIRST = OptionGroup("Options that matter first")
_SENSOR = OptionGroup("Sensor and model")
_SPEED = OptionGroup("Large images and speed")


def _options(group: OptionGroup, *fields: str) -> Callable[[Command], Command]:
    """Return a decorator that adds options of `PredictOptions` to a command."""
    return config_options(*fields, model=PredictOptions, group=group)


@cloup.command()
@click.argument("paths", nargs=-1, type=PATH, metavar="[BUNDLE] [FILE|DIR]...")
@cloup.option(
    "--out", required=True, type=PATH, help="Folder for the results.", group=_FIRST
)
@_options(_FIRST, "points", "negative", "box", "everything", "semantic")
@_options(
    OptionGroup("Other prompts"),
    *("prompts", "crs", "mask", "reference", "reference_mask"),
)
@_options(
    OptionGroup("Results"),
    *("formats", "classes", "min_score", "max_error_rate", "min_area", "uncertainty"),
    *("measure", "pixel_size_um"),
)
@config_options("modality", "modality_options", "channels", group=_SENSOR)
@_options(_SENSOR, "missing")
@card_option(" A bundle takes only the alignment.", _SENSOR)
@foundation_options
@source_option("File of a source, for a sensor with several sources.")
@_options(_SPEED, "tile", "overlap", "mosaic", "executor", "cache")
@config_options("device", group=_SPEED)
def command(
    paths: tuple[Path, ...], source: Mapping[str, Path], out: Path, **given: Any
) -> None:
    """With BUNDLE, segment the object that a prompt marks in each FILE, and in each file of each DIR.

    --everything finds all objects and --semantic the class of every pixel, without a prompt; --reference IMAGE
    --reference-mask MASK finds objects like those of a labelled image. Large images are cut into windows. Finished
    images are skipped, so an interrupted command can be repeated; a file that cannot be read does not stop the others.

    FILE may be the URL of a GeoTIFF (https://, s3://, gs://); only the windows that are needed are fetched. With
    --mosaic the files are the tiles of one map, and the results are named "mosaic".

    BUNDLE is the folder of a run, its bundle.safetensors, hf://ORG/NAME or gallery:NAME. Without BUNDLE, --foundation
    NAME --modality NAME uses the untuned foundation model, with the statistics of each image for normalization.

    For every file, --out gets NAME_mask.png (0 and 255, at the original size), NAME_overlay.png and NAME.json (score,
    prompt, size, channels); also NAME_mask.tif if the file is georeferenced and the sensor's plugin can write it. With
    --prompts, the names are NAME_OBJECT, and the images are in DIR or in the folder of the prompts file. Only results
    of an earlier `simmat predict` are replaced. If DIR is a data set, its images/ folder is used. For a sensor with
    several sources, DIR has the layout of a data set, or a folder for each source. Pixels are counted from the top-left
    corner of the stored image: X is the column, Y the row.

    If a camera lacks a channel, give --missing CHANNEL, whether or not the file has a plane for it. A sensor whose
    channels are all missing needs no file.
    """
    from simmat.api import predict

    is_image = (
        bool(paths)
        and paths[0].is_file()
        and paths[0].suffix not in (".safetensors", ".zip")
    )
    if given["foundation"] and given["modality"] is None and is_image:
        raise ConfigError(
            f"--modality is missing: {paths[0]} is not a bundle, so {given['foundation']!r} is used untuned and needs "
            "--modality NAME, the sensor of the files"
        )
    model = None
    files = paths
    if given["modality"] is None and paths:
        model = paths[0]
        files = paths[1:]
    if source and files:
        raise ConfigError("give either FILES or --source NAME=FILE, not both")
    options = {name: value for name, value in given.items() if value not in (None, ())}
    with ended_by_sigterm(), ConsoleProgress() as progress:
        outcomes = predict(
            model,
            source or files,
            out=out,
            progress=progress,
            registry=load_registry(),
            **options,
        )
    error = joint_error(outcomes, out)
    if error is not None:
        raise error


def joint_error(outcomes: Sequence[ImageOutcome], out: Path) -> SimMATError | None:
    """Return the errors of all failed images as one; None if no image failed."""
    errors = [one.error for one in outcomes if one.error is not None]
    if not errors:
        return None
    if len(outcomes) == 1:
        return errors[0]
    done = len(outcomes) - len(errors)
    title = f"{len(errors)} of {len(outcomes)} images failed; the results of the other {done} are in {out}:"
    return type(errors[0])(all_problems(title, [str(error) for error in errors]))


class ConsoleProgress(Progress):
    """Prints what is done, and shows bars of images and of the windows of a large image."""

    def __init__(self) -> None:
        self._bars = ExitStack()
        self._window_bar = ExitStack()
        self._images: tqdm[Any] | None = None
        self._windows: tqdm[Any] | None = None
        self._left = 0
        self._has_failed = False

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._window_bar.close()
        self._bars.close()

    def started(self, total: int, skipped: int) -> None:
        """Show a bar of the images that are left."""
        if skipped:
            self.note(
                f"note: {skipped} of {total} images were done by an earlier command"
            )
        left = total - skipped
        self._left = left
        self._images = self._bars.enter_context(
            progress_bar("predict", "image", total=left, shown=left > 1)
        )

    def image(self, outcome: ImageOutcome) -> None:
        """Print what was found, why it may be wrong, and at once why the first of several images failed."""
        self._window_bar.close()
        self._windows = None
        if self._images is not None:
            self._images.update()
        for line in outcome.summary:
            self._print(line)
        for text in outcome.warnings:
            self.note(f"Warning: {outcome.name}: {text}")
        self._left -= 1
        if outcome.error is not None and self._left and not self._has_failed:
            self._has_failed = True
            self.note(f"Warning: {outcome.name} failed: {outcome.error}")

    def windows(self, name: str, done: int, total: int) -> None:
        """Show a bar of the windows."""
        if self._windows is None:
            self._windows = self._window_bar.enter_context(progress_bar(name, "window"))
        move_bar(self._windows, done, total)

    def wrote(self, text: str) -> None:
        """Print the file."""
        self._print(text)

    def note(self, text: str) -> None:
        """Print the text on standard error."""
        self._print(text, err=True)

    def _print(self, text: str, *, err: bool = False) -> None:
        with (
            nullcontext()
            if self._images is None
            else self._images.external_write_mode()
        ):
            echo(text, err=err)

"""What to do with each image of a call, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simmat.errors import SimMATError, all_problems
from simmat.inference.formats import ChosenFormats
from simmat.inference.options import PredictOptions
from simmat.inference.prompts import prompt_values
from simmat.inference.records import files_key, request_digest
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.predictor.tiles import SegmentOptions

_OBJECT_ENDINGS = (".json", "_mask.png", "_mask.tif", "_overlay.png", "_uncertainty.tif")
"""Endings of the files of one prompted object."""


@dataclass(frozen=True)
class ImageTask:
    """One image of a call.

    Attributes:
        name: what the names of its files begin with.
        files: source -> file, or the tiles of a mosaic.
        prompts: output name of an object -> prompt in pixels; None if there are none, or they are in map coordinates.
    """

    name: str
    files: Mapping[str, Path]
    prompts: Mapping[str, Prompt] | None = None


@dataclass(frozen=True)
class Job:
    """What to do with each image of a call.

    Attributes:
        out: folder of the results.
        options: what the user asks for.
        formats: formats of the files for all objects of an image, or its class map.
        search: what to look for without prompts; with prompts nothing.
        classes: label values to keep; None for all.
    """

    out: Path
    options: PredictOptions
    formats: ChosenFormats
    search: SegmentOptions
    classes: frozenset[int] | None = None

    @property
    def is_grouped(self) -> bool:
        """Whether all objects of an image, if it is not large, are written to the same files."""
        return self.options.searches or self.options.is_map_file or self.options.formats is not None

    def outputs(self, task: ImageTask) -> tuple[str, ...]:
        """Return what the names of the files of an image begin with."""
        return (task.name,) if self.is_grouped or task.prompts is None else tuple(task.prompts)

    def endings(self) -> tuple[str, ...]:
        """Return what the names of the files of an image may end with."""
        return (".json", *self.formats.endings(self.options.kinds)) if self.is_grouped else _OBJECT_ENDINGS

    def request(self, task: ImageTask, model: str) -> str:
        """Return a digest of all that the results of an image depend on; `model` is that of the model."""
        options = self.options.model_copy(
            update={"cache": None, "executor": "", "prompts": None, "reference": (), "reference_mask": ()}
        )
        prompts = [(name, prompt_values(prompt)) for name, prompt in (task.prompts or {}).items()]
        asked = {"": self.options.prompts} if self.options.prompts is not None and self.options.is_map_file else {}
        files = [files_key(task.files), files_key(asked)]
        return request_digest(model, files, repr((options, self.search, self.classes)), prompts)


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image of a call.

    Attributes:
        name: what the names of its files begin with.
        written: its files; empty if it failed.
        summary: what was found, a line for each file or object.
        warnings: why the results may be wrong.
        error: why it failed; None if it did not.
        skipped: True if an earlier call has done the same.
    """

    name: str
    written: tuple[Path, ...] = ()
    summary: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: SimMATError | None = None
    skipped: bool = False


def image_warnings(values: str, *others: str) -> tuple[str, ...]:
    """Return why results may be wrong: how the values of an image differ from those of training, and others, if any."""
    asked = f"{values}; are unit, bit depth and exposure the same?" if values else ""
    return tuple(filter(None, (asked, *others)))


class Progress:
    """What a call tells while it runs; a method does nothing unless it is overridden."""

    def started(self, total: int, skipped: int) -> None:
        """Images will be segmented; an earlier call has done `skipped` of `total`."""

    def image(self, outcome: ImageOutcome) -> None:
        """An image is done, or has failed."""

    def windows(self, name: str, done: int, total: int) -> None:
        """So many windows of a large image are done."""

    def wrote(self, text: str) -> None:
        """A file for all images is written."""

    def note(self, text: str) -> None:
        """Something that a user should know before the results."""


def joint_error(outcomes: Sequence[ImageOutcome], out: Path) -> SimMATError | None:
    """Return the errors of all failed images as one; None if no image failed."""
    errors = [one.error for one in outcomes if one.error is not None]
    if not errors or len(outcomes) == 1:
        return errors[0] if errors else None
    done = len(outcomes) - len(errors)
    title = f"{len(errors)} of {len(outcomes)} images failed; the results of the other {done} are in {out}:"
    return type(errors[0])(all_problems(title, [str(error) for error in errors]))

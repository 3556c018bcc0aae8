"""What became of the images of a call, and what it tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simmat.errors import SimMATError


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image of a call.

    Attributes:
        name: what the names of its files begin with.
        written: its files; empty if it failed.
        names: what the names of its results begin with; each has a json.
        summary: what was found, a line for each file or object.
        warnings: why the results may be wrong.
        error: why it failed; None if it did not.
        skipped: True if an earlier call did the same.
        objects: number of objects that are written together; None if there is no such file.
    """

    name: str
    written: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    summary: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: SimMATError | None = None
    skipped: bool = False
    objects: int | None = None


class Progress:
    """What is reported while images are segmented; a method does nothing unless it is overridden."""

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

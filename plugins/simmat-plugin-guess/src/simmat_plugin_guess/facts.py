"""What a sensor of any package sees of the files of a folder, and what it may say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from simmat.types import Colour

Certainty = Literal["stated", "likely", "possible", "unlikely"]
"""Whether the files state that they are of the sensor, facts speak for it, nothing is against it, or something is."""


@dataclass(frozen=True)
class FileFacts:
    """What one image file shows.

    Attributes:
        path: the file, or the middle frame of a file of frames.
        format: "png", "jpeg", "tiff", "npy" or another format that an installed package reads.
        planes: number of stored planes.
        dtype: type of the stored numbers.
        size_hw: (height, width) in pixels.
        colour: what the file says of its planes, see `simmat.types.ImageFile`.
        low: least stored number of each plane.
        high: largest stored number of each plane.
        zeros: share of pixels of each plane that are 0.
        equal: pairs of planes that are equal in every pixel.
        description: the text in the file, such as a TIFF ImageDescription.
        nodata: numbers that the file calls nodata.
        scales: scale and offset that the file states for each plane; empty if it states none.
        alpha: whether the last plane is opacity.
        segments: of a JPEG the segments that programs and cameras add, such as "APP1 FLIR", but for the common ones.
        is_label: whether it looks like a label image: few different whole numbers in large patches.
    """

    path: Path
    format: str
    planes: int
    dtype: str
    size_hw: tuple[int, int]
    colour: Colour
    low: tuple[float, ...]
    high: tuple[float, ...]
    zeros: tuple[float, ...]
    equal: tuple[tuple[int, int], ...] = ()
    description: str = ""
    nodata: tuple[float, ...] = ()
    scales: tuple[tuple[float, float], ...] = ()
    alpha: bool = False
    segments: tuple[str, ...] = ()
    is_label: bool = False


@dataclass(frozen=True)
class FilesOfKind:
    """Files of one kind: the same format, number of planes and type of numbers.

    Attributes:
        samples: those that were looked at.
        count: number of files of this ending in the folder.
        words: words in the names of the folder and its parents, in lower case.
    """

    samples: tuple[FileFacts, ...]
    count: int
    words: frozenset[str] = frozenset()

    @property
    def first(self) -> FileFacts:
        """The first file that was looked at."""
        return self.samples[0]

    @property
    def low(self) -> float:
        """The least stored number of all files that were looked at."""
        return min(min(one.low) for one in self.samples)

    @property
    def high(self) -> float:
        """The largest stored number of all files that were looked at."""
        return max(max(one.high) for one in self.samples)

    @property
    def sizes_hw(self) -> tuple[tuple[int, int], ...]:
        """The different sizes of the files that were looked at."""
        return tuple(dict.fromkeys(one.size_hw for one in self.samples))

    def planes_are_equal(self, one: int, other: int) -> bool:
        """Return whether two planes are equal in every file."""
        return all((one, other) in facts.equal for facts in self.samples)


@dataclass(frozen=True)
class Recognition:
    """What a sensor recognizes in files.

    Attributes:
        certainty: how sure it is that the files are of this sensor.
        evidence: what in the files speaks for it, a sentence each.
        options: options of the sensor with which it reads the files.
        unit: what in the files states the unit; "" if nothing does.
        questions: what the files cannot tell, each with the option that says it.
    """

    certainty: Certainty
    evidence: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    questions: tuple[str, ...] = ()


@runtime_checkable
class RecognizesFiles(Protocol):
    """A sensor that says what shows that files are its own; others are still named where they read them."""

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Return what shows that files are of this sensor; None if nothing does.

        Say that the files state a unit only if they do; what they cannot tell belongs into `Recognition.questions`.
        """

"""The contract of a sensor: what a modality plugin gives.

A plugin subclasses `ModalityAdapter`, declares its sources and channels, and writes `load`. The
core does the rest: nodata, augmentation, statistics, normalization, resizing. Nothing here
imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from simmat.api_version import API_VERSION
from simmat.errors import ConfigError, PluginError, SimMATError, SpecError
from simmat.types import BoolArray, Channel, Georeference, SensorImage

if TYPE_CHECKING:
    from simmat.scene import Scene

Axis = Literal["horizontal", "vertical"]


RESERVED_SOURCES = ("id", "split", "mask", "zero_means", "train", "val", "test")
"""Columns of `manifest.csv` and folders of splits, which no source can be named as."""


@dataclass(frozen=True, slots=True)
class Source:
    """One of the files a sample is made of.

    Attributes:
        name: the column of `manifest.csv`, the folder `images/NAME`, the NAME of `--source NAME=FILE`.
        extensions: lower-case file endings it may have, with the dot; the first is the one `save` writes.

    Raises:
        SpecError: the name is one of `RESERVED_SOURCES`.
    """

    name: str
    extensions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.name in RESERVED_SOURCES:
            raise SpecError(
                f"a source cannot be named {self.name!r}: data sets use {', '.join(RESERVED_SOURCES)} themselves; "
                "choose another name"
            )


class ModalityAdapter(ABC):
    """A sensor: its channels, its files, and how its values behave.

    Attributes:
        name: what `--modality` takes; lower case, digits and hyphens, no "+".
        description: one line for `simmat modalities list`.
        sources: the files of one sample; the first is the reference grid, which is the original image.
        channels: the channels `load` returns; empty where only the file can say how many. Where a
            file can refine a unit (kelvin or counts), the loaded image's own channels are what counts.
        variant_of: name of the sensor whose files this one reads otherwise (another unit, another encoding); `simmat
            modalities list` then names it on that sensor's line. Empty for a sensor of its own.
        api_version: of the plugin interface it is written for; another than SimMAT's own is refused by name.
    """

    name: str
    description: str
    sources: tuple[Source, ...]
    channels: tuple[Channel, ...] = ()
    variant_of: str = ""

    api_version: ClassVar[int] = API_VERSION

    @abstractmethod
    def load(self, files: Mapping[str, Path]) -> SensorImage:
        """Read one sample.

        `simmat.imageio.read_image` marks the stored numbers that the user calls nodata; a sensor that reads files
        by other means asks `simmat.imageio.stated_valid` for them.

        Args:
            files: source name -> file, one for each of `sources`.

        Returns:
            (C, H, W) in physical units, at the size of the reference source's file.

        Raises:
            DataError: a file is missing, damaged, or not what this sensor writes; it names the path.
        """

    def configured(self, card: Mapping[str, Any]) -> ModalityAdapter:
        """Return this sensor ready for one data set; override where `load` needs what the data card says.

        It is called before anything is read: with the card of the data set in training and evaluation, with the
        card that the bundle keeps in prediction.

        Args:
            card: the fields of `card.toml` as plain values, such as `card["intrinsics"]`: None, or a mapping with
                the focal lengths "fx", "fy" and the principal point "cx", "cy" in pixels.

        Returns:
            Another adapter, for an installed one is shared; self where nothing depends on the card.
        """
        return self

    def transform(self, image: SensorImage) -> SensorImage:
        """Map physical values pointwise to those the network gets (log, dB, sin/cos); default: none.

        It runs after augmentation and before normalization. It may change the channels; statistics
        are taken of what it returns. Invalid pixels must stay invalid. The image given is not written into, for it is
        used again: return new arrays.
        """
        return image

    def logarithmic(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Say which channels, as `load` gives them, `transform` takes the logarithm of; default: none.

        Augmentation changes those by factors: what suits the spread of a radar's power, which is that of its few bright
        targets, would leave nothing of the sea.

        Args:
            channels: C of them, of a loaded image.

        Returns:
            One truth value for each.
        """
        return (False,) * len(channels)

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        """Mirror an image or a part of one; override where mirroring changes values, as for angles.

        The image given is not written into.

        Args:
            image: (C, H, W).
            axis: "horizontal" swaps left and right, "vertical" swaps top and bottom.
        """
        step: tuple[slice, ...] = (slice(None), slice(None), slice(None, None, -1))
        if axis == "vertical":
            step = (slice(None), slice(None, None, -1))
        return replace(
            image, data=np.ascontiguousarray(image.data[step]), valid=np.ascontiguousarray(image.valid[step])
        )

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        """Turn an image or a part of one counter-clockwise by 90° times `quarter_turns`; override for angles.

        The image given is not written into.
        """
        data = np.ascontiguousarray(np.rot90(image.data, quarter_turns, axes=(1, 2)))
        valid = np.ascontiguousarray(np.rot90(image.valid, quarter_turns, axes=(1, 2)))
        return replace(image, data=data, valid=valid)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return what this sensor would see of a synthetic scene, on the scene's pixel grid.

        Raises:
            ConfigError: this sensor cannot be simulated.
        """
        raise ConfigError(f"modality {self.name!r} cannot be simulated: its plugin defines no simulate()")

    def save(self, image: SensorImage, files: Mapping[str, Path]) -> None:
        """Write an image so that `load` reads it back, to the precision of the file format.

        Raises:
            ConfigError: this sensor's files cannot be written.
        """
        raise ConfigError(f"modality {self.name!r} cannot write files: its plugin defines no save()")

    def save_mask(self, mask: BoolArray, georeference: Georeference, path: Path) -> Path | None:
        """Write a predicted mask as a file that keeps its place on the earth; default: write nothing.

        `simmat predict` asks for it where the loaded image has a georeference.

        Args:
            mask: (H, W) of the original image.
            georeference: of the original image.
            path: the file to write, without ending; the adapter adds that of its format.

        Returns:
            The file written, or None.

        Raises:
            OutputError: the file cannot be written.
        """
        return None

    def source_names(self) -> tuple[str, ...]:
        """The names of `sources`, reference first."""
        return tuple(source.name for source in self.sources)


def load_sample(adapter: ModalityAdapter, files: Mapping[str, Path]) -> SensorImage:
    """Read one sample as the adapter does, so that a fault in a plugin's own code is told as one.

    Args:
        adapter: the sensor.
        files: source name -> file.

    Raises:
        SimMATError: as `adapter.load` says.
        PluginError: it raised anything else, or returned something else; the message names sensor, file and class.
    """
    where = f"modality {adapter.name!r} ({type(adapter).__module__}) failed on {', '.join(map(str, files.values()))}"
    try:
        image = adapter.load(files)
    except (SimMATError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"{where}: {type(error).__name__}: {error}. This is a fault in the sensor's plugin; tell its author, or "
            "set SIMMAT_DEBUG=1 to see where it happened"
        ) from error
    if not isinstance(image, SensorImage):
        raise PluginError(f"{where}: its load returned {type(image).__name__}, not a SensorImage; tell its author")
    return image

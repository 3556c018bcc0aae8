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
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from simmat.errors import ConfigError, DataError, PluginError, SimMATError, SpecError
from simmat.io.nodata import StatedNodata as StatedNodata
from simmat.sensors.channel_selection import MissingChannels as MissingChannels
from simmat.sensors.options import ModalityOptions, option_words, options_by_sensor, parse_options
from simmat.specs import API_VERSION
from simmat.types import BoolArray, Channel, Georeference, SensorImage

if TYPE_CHECKING:
    from simmat.sensors.scene import Scene

Axis = Literal["horizontal", "vertical"]
Files: TypeAlias = Mapping[str, Path]
"""Source name -> file, of one sample."""
Nodata: TypeAlias = StatedNodata | None
"""What `load` is told of the number that means no measurement."""
Missing: TypeAlias = MissingChannels | None
"""What `load` is told of channels that a sample lacks."""

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
        options: what the user says of the files or of how to read them.
        Options: the pydantic model of `options`; a sensor that has any declares a subclass of `ModalityOptions`,
            and its constructor takes them alone. What depends on an option (sources, channels) is set there.
        replaces: names that an older version of the plugin gave -> the option that takes its place, "unit=cK".
        api_version: of the plugin interface it is written for; another than SimMAT's own is refused by name.
    """

    name: str
    description: str
    sources: tuple[Source, ...]
    channels: tuple[Channel, ...] = ()
    options: ModalityOptions = ModalityOptions()

    Options: ClassVar[type[ModalityOptions]] = ModalityOptions
    replaces: ClassVar[Mapping[str, str]] = {}
    api_version: ClassVar[int] = API_VERSION

    def __init__(self, options: ModalityOptions | None = None) -> None:
        """Make the sensor with options; None for its defaults."""
        self.options = self.Options() if options is None else options

    @abstractmethod
    def load(self, files: Files, *, nodata: Nodata = None, missing: Missing = None) -> SensorImage:
        """Read one sample.

        Args:
            files: source name -> file, one for each of `sources` but the optional ones.
            nodata: numbers stored in the files that the user calls nodata: hand it to `simmat.io.images.read_image`; a
                sensor that reads files by other means calls `simmat.io.images.stated_valid`.
            missing: channels that the files need not have, or None. Whether a file has them or not, load what it has:
                the caller puts invalid planes in the place of those.

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

    def sensors(self) -> tuple[ModalityAdapter, ...]:
        """The sensors it consists of: itself alone, or the parts of a composition."""
        return (self,)

    def with_options(self, options: Mapping[str, Mapping[str, Any]]) -> ModalityAdapter:
        """Return this sensor with other options; those that are not named stay as they are.

        Args:
            options: sensor -> option -> value; what is said of other sensors is not looked at.

        Raises:
            ConfigError: an option is unknown, or its value is not allowed.
        """
        said = options.get(self.name)
        if not said:
            return self
        return type(self)(parse_options(self.Options, {**self.stated_options(), **said}, self.name))

    def stated_options(self) -> dict[str, Any]:
        """The options that were given a value, as plain values."""
        return self.options.model_dump(mode="json", exclude_unset=True)

    def optional_sources(self, missing: MissingChannels) -> tuple[str, ...]:
        """Return the sources whose file need not be given where channels are missing."""
        return ()

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

    def save(self, image: SensorImage, files: Files) -> None:
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


def options_of(adapter: ModalityAdapter) -> dict[str, dict[str, Any]]:
    """Return sensor -> option -> value of all options that were given one."""
    return {part.name: stated for part in adapter.sensors() if (stated := part.stated_options())}


def fitted_to_card(adapter: ModalityAdapter, card: Mapping[str, Any]) -> ModalityAdapter:
    """Return a sensor ready for one data set: with the options that its card says, and `configured`.

    Args:
        adapter: the sensor, with the options that the user gives.
        card: the fields of the data card as plain values.

    Raises:
        ConfigError: the card contradicts an option, or says one that the sensor does not have.
    """
    parts = adapter.sensors()
    said = options_by_sensor(card.get("modality_options") or {}, [part.name for part in parts])
    for part in parts:
        own, stated = said.get(part.name, {}), part.stated_options()
        for option in sorted(set(own) & set(stated)):
            if own[option] != stated[option]:
                raise ConfigError(
                    f"modality {part.name!r}: the option says {option_words({option: stated[option]})}, the data card "
                    f"{option_words({option: own[option]})}; correct the one that is wrong"
                )
    return adapter.with_options(said).configured(card)


def load_sample(
    adapter: ModalityAdapter,
    files: Files,
    *,
    nodata: Nodata = None,
    missing: Missing = None,
) -> SensorImage:
    """Read one sample as the adapter does, so that a fault in a plugin's own code is told as one.

    Args:
        adapter: the sensor.
        files: source name -> file.
        nodata: numbers stored in the files that the user calls nodata.
        missing: channels that are missing; they come back without a valid pixel.

    Raises:
        SimMATError: as `adapter.load` says.
        DataError: the sensor's reader does not look for a number that `nodata` states.
        PluginError: it raised anything else, or returned something else; the message names sensor, file and class.
    """
    where = f"modality {adapter.name!r} ({type(adapter).__module__}) failed on {', '.join(map(str, files.values()))}"
    try:
        image = adapter.load(files, nodata=nodata, missing=missing)
    except (SimMATError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"{where}: {type(error).__name__}: {error}. This is a fault in the sensor's plugin; tell its author, or "
            "set SIMMAT_DEBUG=1 to see where it happened"
        ) from error
    if not isinstance(image, SensorImage):
        raise PluginError(f"{where}: its load returned {type(image).__name__}, not a SensorImage; tell its author")
    if nodata is not None and (unasked := nodata.unasked()):
        raise DataError(
            f"{unasked[0]}: --nodata {nodata.values[unasked[0]]:g} is a number stored in the file, and this sensor's "
            "reader does not look for it there; leave --nodata out (a plugin that reads files itself calls "
            "simmat.io.images.stated_valid)"
        )
    return image if missing is None else missing.spread(image)

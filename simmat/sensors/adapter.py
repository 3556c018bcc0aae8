"""The contract of a sensor: what a modality plugin provides.

A plugin subclasses `ModalityAdapter`, declares its sources and channels, and writes `load`. The core does the rest:
augmentation, statistics, normalization, resizing. Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from simmat.errors import (
    ConfigError,
    DataError,
    PluginError,
    SimMATError,
    SpecError,
    did_you_mean,
    with_line,
)
from simmat.io.images import window_size
from simmat.io.limits import check_window
from simmat.plugin_specs import API_VERSION
from simmat.sensors.options import (
    ModalityOptions,
    format_nodata,
    format_options,
    options_by_sensor,
    parse_options,
)
from simmat.terminal import SLOW_S, warn_if_slow
from simmat.types import Channel, SensorImage, Window

Axis = Literal["horizontal", "vertical"]
PathsBySource: TypeAlias = Mapping[str, Path]
"""Source name -> file, of one sample."""

RESERVED_SOURCES = ("id", "split", "mask", "zero_means", "train", "val", "test")
"""Columns of `manifest.csv` and folders of splits: no source can have one of these names."""


@dataclass(frozen=True, slots=True)
class Source:
    """One of the files of a sample.

    Attributes:
        name: the column of `manifest.csv`, the folder `images/NAME`, the NAME of `--source NAME=FILE`.
        extensions: allowed file endings, in lower case with the dot; `save` writes the first one.
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
        channels: the channels that `load` returns; empty if only the file knows how many there are. A file may refine a
            unit (kelvin or counts); then the channels of the loaded image apply.
        options: what the user says about the files or how to read them.
        definition: the content of the `sensor.toml` that describes it, which a bundle contains; None for a sensor
            written in code.
        Options: the pydantic model of `options`. A sensor with options besides `nodata` declares a subclass of
            `ModalityOptions`; its constructor takes no other argument and sets what depends on an option (sources,
            channels).
        api_version: version of the plugin interface it is written for; any other than SimMAT's own is refused.
    """

    name: str
    description: str
    sources: tuple[Source, ...]
    channels: tuple[Channel, ...] = ()
    options: ModalityOptions = ModalityOptions()
    definition: Any = None

    Options: ClassVar[type[ModalityOptions]] = ModalityOptions
    api_version: ClassVar[int] = API_VERSION

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Turn off windows for a class that overrides only `load`: they would still come from its parent."""
        super().__init_subclass__(**arguments)
        if "load" in vars(cls) and "load_window" not in vars(cls):
            cls.load_window = ModalityAdapter.load_window  # type: ignore[method-assign]
            cls.window_size = ModalityAdapter.window_size  # type: ignore[method-assign]

    def __init__(self, options: ModalityOptions | None = None) -> None:
        """Make the sensor with options; None for the defaults."""
        self.options = self.Options() if options is None else options

    @abstractmethod
    def load(self, files: PathsBySource) -> SensorImage:
        """Read one sample.

        Args:
            files: source name -> file, for each of `sources`.

        Returns:
            (C, H, W) in physical units, at the size of the reference source's file; not valid where the stored number
            is `self.nodata(source)`, which `simmat.io.images.read_image` takes.

        Raises:
            DataError: a file is missing, damaged, or not one of this sensor; it names the path.
        """

    def nodata(self, source: str) -> float | None:
        """Return the number stored in a source's file that the user says means "no measurement"."""
        stated = self.options.nodata
        if isinstance(stated, Mapping):
            return stated.get(source)
        return stated

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        """Return the (height, width) of a sample that `load_window` can read in parts; default: None, it cannot.

        It decodes no pixels, and refuses no image for its size.

        Raises:
            DataError: a file is missing, damaged, or of another format.
        """
        return None

    def load_window(self, files: PathsBySource, window: Window) -> SensorImage:
        """Read a part of one sample and decode little more than that; it is called if `window_size` is not None.

        Args:
            window: within the image.

        Returns:
            The part of what `load` returns: (C, h, w), with the georeference of the part. Faults that only the whole
            image can show are not checked: a part may hold nothing but nodata.

        Raises:
            DataError: as `load`, except for such faults; or the window reaches beyond the image.
        """
        raise NotImplementedError(
            f"modality {self.name!r} reads no windows, as its window_size says"
        )

    def with_channels(self, selected: Sequence[str | int]) -> ModalityAdapter:
        """Return this sensor for reading windows of which only some channels are used; default: no change.

        Override it if files hold many bands and `transform` computes no channel of several: `load_window` may leave
        out the others, which then have no valid pixel.

        Args:
            selected: the channels that are used, as `simmat.sensors.channel_selection.pick_channels` takes them.

        Returns:
            A new adapter, or self.
        """
        return self

    def configured(self, card: Mapping[str, Any]) -> ModalityAdapter:
        """Return this sensor configured for one data set; override it if `load` needs a fact from the data card.

        It is called before any file is read: with the card of the data set in training and evaluation, with the card
        in the bundle in prediction.

        Args:
            card: the fields of `card.toml` as plain values, such as `card["intrinsics"]`: None, or a mapping with
                the focal lengths "fx", "fy" and the principal point "cx", "cy" in pixels.

        Returns:
            A new adapter, since installed ones are shared; self if nothing depends on the card.
        """
        return self

    def sensors(self) -> tuple[ModalityAdapter, ...]:
        """The sensors of which it consists: only itself, or the parts of a composition."""
        return (self,)

    def cameras(self) -> tuple[ModalityAdapter, ...]:
        """The sensor as one for each source, if each has a pixel grid of its own; default: only itself, one grid.

        Each has one source, whose name is that of the camera, and returns the channels of this file. `simmat align`
        estimates where the images of the further ones lie on those of the first. A sensor with several cameras takes
        the result from the card in `configured`.
        """
        return (self,)

    def with_options(self, options: Mapping[str, Mapping[str, Any]]) -> ModalityAdapter:
        """Return this sensor with some options changed.

        Args:
            options: sensor -> option -> value; the options of other sensors are ignored.

        Raises:
            ConfigError: an option is unknown, or its value is not allowed.
        """
        own = options.get(self.name)
        if not own:
            return self
        parsed = parse_options(
            self.Options, {**self.stated_options(), **own}, self.name
        )
        if self.Options is not ModalityOptions:
            return type(self)(parsed)
        made = copy(self)  # without options of its own it may have any constructor
        made.options = parsed
        return made

    def stated_options(self) -> dict[str, Any]:
        """The options that were given a value, as plain values."""
        return self.options.model_dump(mode="json", exclude_unset=True)

    def transform(self, image: SensorImage) -> SensorImage:
        """Map physical values pointwise to those the network gets (log, dB, sin/cos); default: no change.

        It runs after augmentation and before normalization, and may change the channels; statistics are taken of its
        result. Invalid pixels must stay invalid. Return new arrays: the given image is used again.
        """
        return image

    def transform_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> tuple[Any, Any]:
        """Compute what `transform` does in the functions of any library of arrays, so that an export can hold it.

        A sensor with a `transform` needs it to be exported. Functions that have the same name in numpy and torch can be
        used: `library.where(valid, data, 1.0)`, `log10`, `cos`, `stack`, but no assignment to parts of an array.

        Args:
            data: (..., C, H, W) in the units of `channels`, 0 where invalid; it must not be changed.
            valid: bool of the same shape.
            channels: C channels as loaded.
            library: numpy, torch or the like; data and valid are its arrays.

        Returns:
            The arrays of the channels that `transform` returns.

        Raises:
            NotImplementedError: it has a `transform` that depends on more than a pixel, or that is not written here.
        """
        if type(self).transform is not ModalityAdapter.transform:
            raise NotImplementedError(
                f"{type(self).__name__} has a transform, but no transform_arrays"
            )
        return data, valid

    def may_average(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Return for each of C loaded channels whether values of neighbours may be averaged; default: no for angles.

        An image that is brought onto another sensor's pixel grid has the value of the nearest pixel in such channels.
        Override it for channels of labels.
        """
        return tuple(channel.unit not in ("deg", "rad") for channel in channels)

    def is_log_scale(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Return for each of C loaded channels whether `transform` takes its logarithm; default: no.

        Augmentation multiplies such a channel. An offset in proportion to its spread, which the few bright targets of a
        radar image determine, would hide all weak echoes.
        """
        return (False,) * len(channels)

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        """Mirror an image or a crop of one; override where mirroring changes values, as for angles.

        Args:
            image: (C, H, W); it must not be changed.
            axis: "horizontal" swaps left and right, "vertical" swaps top and bottom.
        """
        number = 2 if axis == "horizontal" else 1
        data = np.ascontiguousarray(np.flip(image.data, number))
        # most images are, and reversing bytes takes as long as reversing the values
        whole = image.valid.all()
        if whole:
            valid = image.valid.copy()
        else:
            valid = np.ascontiguousarray(np.flip(image.valid, number))
        return replace(image, data=data, valid=valid)

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        """Rotate an image or a crop of one counter-clockwise by 90° times `quarter_turns`; override for angles.

        The given image must not be changed.
        """
        data = np.ascontiguousarray(np.rot90(image.data, quarter_turns, axes=(1, 2)))
        valid = np.ascontiguousarray(np.rot90(image.valid, quarter_turns, axes=(1, 2)))
        return replace(image, data=data, valid=valid)

    def simulate(self, scene: Any, rng: np.random.Generator) -> SensorImage:
        """Return what this sensor would see of a synthetic scene, on the scene's pixel grid.

        Args:
            scene: depth, normals, materials and light of each pixel, as the package that makes scenes defines them.

        Raises:
            ConfigError: this sensor cannot be simulated.
        """
        raise ConfigError(
            f"modality {self.name!r} cannot be simulated; write a plugin that defines simulate()"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write an image so that `load` reads it back, to the precision of the file format.

        Raises:
            ConfigError: this sensor's files cannot be written.
        """
        raise ConfigError(
            f"modality {self.name!r} cannot write files; write a plugin that defines save()"
        )

    def source_names(self) -> tuple[str, ...]:
        """The names of `sources`, reference first."""
        return tuple(source.name for source in self.sources)


class WindowedAdapter(ModalityAdapter):
    """A sensor that can read parts of its files; a subclass writes `read` instead of `load` and `load_window`."""

    @abstractmethod
    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read one sample, or the part of it in a window.

        Args:
            window: pass it to `simmat.io.images.read_image`; None for the whole image.

        Returns:
            As `load` or `load_window`.
        """

    def load(self, files: PathsBySource) -> SensorImage:
        """Read one sample."""
        return self.read(files, None)

    def load_window(self, files: PathsBySource, window: Window) -> SensorImage:
        """Read a part of one sample."""
        return self.read(files, window)

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        """Return the (height, width) of all files; None if one is not a TIFF or npy file."""
        return common_size({str(path): window_size(path) for path in files.values()})


def common_size(
    sizes: Mapping[str, tuple[int, int] | None], *, hint: str = ""
) -> tuple[int, int] | None:
    """Return the size that images have in common, as `window_size` returns it; None if one of them is None.

    Args:
        sizes: what the user calls each image -> its (height, width).
        hint: what else the user can do about different sizes.

    Raises:
        DataError: two sizes differ.
    """
    if not sizes or None in sizes.values():
        return None
    if len(set(sizes.values())) > 1:
        listed = ", ".join(
            f"{name} is {size[1]}x{size[0]}" for name, size in sizes.items() if size
        )
        raise DataError(
            f"{listed} (width x height); all sources of a sample must share one pixel grid{hint}"
        )
    return next(iter(sizes.values()))


def channels_by_source(
    adapter: ModalityAdapter, channels: Sequence[Channel]
) -> dict[str, list[int]]:
    """Return, for each source, the indices of all loaded channels of its sensor; raises as `channel_spans`."""
    spans = channel_spans(adapter, channels)
    found = {}
    for (_, own), (_, span) in zip(_own_sources(adapter), spans, strict=True):
        for source in own.values():
            found[source] = list(span)
    return found


def _own_sources(
    adapter: ModalityAdapter,
) -> list[tuple[ModalityAdapter, dict[str, str]]]:
    """Return each sensor that an adapter consists of, with its own names of its sources -> those of the adapter."""
    names = iter(adapter.source_names())
    found = []
    for part in adapter.sensors():
        found.append((part, {own: next(names) for own in part.source_names()}))
    return found


def channel_spans(
    adapter: ModalityAdapter, channels: Sequence[Channel]
) -> list[tuple[ModalityAdapter, range]]:
    """Return each sensor that an adapter consists of, with the indices of its loaded channels.

    PluginError: their number is not that of the channels which the sensor declares.
    """
    known = sum(len(part.channels) for part in adapter.sensors())
    spans = []
    start = 0
    for part in adapter.sensors():
        end = start + (len(part.channels) or len(channels) - known)
        spans.append((part, range(start, end)))
        start = end
    if start != len(channels):
        raise PluginError(
            f"modality {adapter.name!r} declares {known} channels, but its load returned {len(channels)}: "
            f"{', '.join(channel.name for channel in channels)}. Tell its author"
        )
    return spans


def options_of(adapter: ModalityAdapter) -> dict[str, dict[str, Any]]:
    """Return sensor -> option -> value of all options that were given a value."""
    found = {}
    for part in adapter.sensors():
        stated = part.stated_options()
        if stated:
            found[part.name] = stated
    return found


def _names_of(adapter: ModalityAdapter) -> list[str]:
    """Return the names of the sensors of which an adapter consists."""
    return [part.name for part in adapter.sensors()]


def options_for_card(
    stated: Mapping[str, Any], adapter: ModalityAdapter
) -> dict[str, Any]:
    """Return the options of a data card, with those that a sensor was given.

    Args:
        stated: what the card states; it is returned as it is if nothing is new.
        adapter: the sensor, before the card was applied.

    Raises:
        ConfigError: the card states an option twice.
    """
    merged = options_by_sensor(stated, _names_of(adapter), with_others=True)
    is_new = False
    for sensor, given in options_of(adapter).items():
        own = merged.setdefault(sensor, {})
        is_new = is_new or not given.items() <= own.items()
        own |= given
    return merged if is_new else dict(stated)


def sensor_definitions_of(adapter: ModalityAdapter) -> tuple[Any, ...]:
    """Return the definitions of the sensors that a `sensor.toml` describes, among those that an adapter consists of."""
    return tuple(
        part.definition for part in adapter.sensors() if part.definition is not None
    )


def with_data_card(
    adapter: ModalityAdapter, card: Mapping[str, Any]
) -> ModalityAdapter:
    """Return a sensor with the options and the nodata of a data card, and `configured` for it.

    Raises:
        ConfigError: an option contradicts the card, or the card's nodata or alignment does not fit the sensor.
    """
    options = options_by_sensor(
        card.get("modality_options") or {}, _names_of(adapter), with_others=True
    )
    adapter = _with_options_of_card(adapter, options)  # they may change its sources
    _check_alignments(adapter, card.get("alignment") or {})
    return _with_options_of_card(
        adapter, _nodata_by_sensor(adapter, card.get("nodata"))
    ).configured(card)


def _with_options_of_card(
    adapter: ModalityAdapter, options: Mapping[str, Mapping[str, Any]]
) -> ModalityAdapter:
    for part in adapter.sensors():
        stated = part.stated_options()
        for option, value in sorted(options.get(part.name, {}).items()):
            if option in stated and stated[option] != value:
                said = format_options({option: stated[option]})
                of_card = format_options({option: value})
                raise ConfigError(
                    f"modality {part.name!r}: the option says {said}, the data card {of_card}; correct the wrong one"
                )
    return adapter.with_options(options)


def _check_alignments(adapter: ModalityAdapter, aligned: Collection[str]) -> None:
    """Raise ConfigError if a card aligns a further source of a sensor whose files share one pixel grid."""
    for part, own in _own_sources(adapter):
        first, *others = own.values()
        for source in others:
            if source in aligned and len(part.cameras()) == 1:
                raise ConfigError(
                    f"the data card: alignment.{source}: all files of modality {part.name!r} must share one pixel "
                    f"grid; align {first!r}, by which the others are placed"
                )


def _nodata_by_sensor(
    adapter: ModalityAdapter, nodata: float | Mapping[str, float] | None
) -> dict[str, dict[str, float | dict[str, float]]]:
    """Return sensor -> the option "nodata" -> what a card states for the sensor's own sources.

    Raises:
        ConfigError: an unknown source, or one number for several sensors.
    """
    parts = adapter.sensors()
    sources = adapter.source_names()
    if nodata is None:
        return {}
    if not isinstance(nodata, Mapping):
        if len(parts) == 1:
            return {parts[0].name: {"nodata": nodata}}
        number = format_nodata(nodata)
        every = format_nodata(dict.fromkeys(sources, nodata))
        raise ConfigError(
            f"nodata = {number} (--nodata or card.toml) would hold for all sensors of {adapter.name}, but may be a "
            f"measurement of some; name the sources it holds for: --nodata {sources[-1]}={number}, for all --nodata "
            f"{every}"
        )
    for name in nodata:
        if name not in sources:
            hint = did_you_mean(name, sources, otherwise="")
            raise ConfigError(
                f"nodata of {name!r} (--nodata or card.toml): {adapter.name} has the sources {', '.join(sources)}{hint}"
            )
    found: dict[str, dict[str, float | dict[str, float]]] = {}
    for part, own in _own_sources(adapter):
        table = {
            name: nodata[joined] for name, joined in own.items() if joined in nodata
        }
        if table:
            found[part.name] = {"nodata": table}
    return found


def load_sample(
    adapter: ModalityAdapter, files: PathsBySource, window: Window | None = None
) -> SensorImage:
    """Read one sample, or the part in a window.

    If the sensor's `window_size` is None, the whole image is loaded and the part is cut out.

    Raises:
        SimMATError: as `adapter.load` or `adapter.load_window` raises it.
        PluginError: it raised anything else, or returned another type; the message names sensor, file and class.
    """
    paths = ", ".join(map(str, files.values()))
    who = f"modality {adapter.name!r} ({type(adapter).__module__})"
    where = f"{who} failed on {paths}"
    try:
        with warn_if_slow(
            f"{who} has been reading {paths} for {SLOW_S:g} s; if it never ends, its plugin hangs"
        ):
            in_parts = window is not None and adapter.window_size(files) is not None
            if window is not None and in_parts:
                image = adapter.load_window(files, window)
            else:
                image = adapter.load(files)
    except (SimMATError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"{where}: {with_line(error)}. This is a fault in the sensor's plugin; tell its author"
        ) from error
    if not isinstance(image, SensorImage):
        raise PluginError(
            f"{where}: its load returned {type(image).__name__}, not a SensorImage; tell its author"
        )
    if window is not None and not in_parts:
        check_window(
            Path(image.origin or next(iter(files.values()))), window, image.size_hw
        )
        image = image.cut(window)
    return image

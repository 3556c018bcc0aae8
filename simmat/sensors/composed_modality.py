"""Sensors made of others: several side by side (`rgb+thermal`), and some channels of them (`--channels`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simmat.errors import ConfigError, DataError
from simmat.sensors.adapter import (
    Axis,
    ModalityAdapter,
    PathsBySource,
    Source,
    channel_spans,
    common_size,
)
from simmat.sensors.channel_selection import pick_channels
from simmat.sensors.warp import Alignment, Matrix, Warp, alignments_of
from simmat.types import Channel, Georeference, SensorImage, Window

ALIGN_HINT = "; register them, or estimate where each lies by `simmat align`, which states it in the data card"
"""What the user can do about files of different sizes."""
# largest distance of the corners of two images; programs round a grid differently
_SAME_PLACE_PX = 0.1


class ComposedModality(ModalityAdapter):
    """Several adapters as one sensor: `rgb+thermal`. Channels and sources are joined in order.

    The first adapter's reference source is the reference grid. A part is brought onto it if the data card states where
    both lie; otherwise a part of another size is refused. Where two parts share a channel or source name, the later
    one becomes `MODALITY.NAME`.

    Attributes:
        parts: the adapters; one alone where only some of its channels are used.
        selected_channels: the channels that reach the network, in this order (`--channels`); None for all. Loading and
            augmentation see all planes, since values may depend on several of them; these are picked from what
            `transform` returns.
        alignments: source -> where it lies on the grid of another source, see `simmat.sensors.warp`.
    """

    def __init__(
        self,
        parts: Sequence[ModalityAdapter],
        selected_channels: Sequence[str | int] | None = None,
        alignments: Mapping[str, Alignment] | None = None,
    ) -> None:
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise ConfigError(
                f"a composition needs different modalities, got {'+'.join(names)!r}"
            )
        if sum(not part.channels for part in parts) > 1:
            raise ConfigError(
                f"of the parts of {'+'.join(names)!r} only one may leave its channel count to the file"
            )
        if selected_channels is not None and not selected_channels:
            raise ConfigError("--channels needs at least one channel index or name")
        self.parts = tuple(parts)
        self.selected_channels = selected_channels
        self.alignments = dict(alignments or {})
        self.name = "+".join(names)
        self.description = ", ".join(part.description for part in parts)
        # sensor -> its own source -> the source's name here
        self._sources: dict[str, dict[str, str]] = {}
        joined: list[Source] = []
        for part in parts:
            taken = {source.name for source in joined}
            own: dict[str, str] = {}
            for source in part.sources:
                own[source.name] = _unique(part, source.name, taken)
                joined.append(replace(source, name=own[source.name]))
            self._sources[part.name] = own
        self.sources = tuple(joined)
        if all(part.channels for part in parts):
            self.channels = self._join({part.name: part.channels for part in parts})

    def sensors(self) -> tuple[ModalityAdapter, ...]:
        """The parts."""
        return self.parts

    def with_options(
        self, options: Mapping[str, Mapping[str, Any]]
    ) -> ComposedModality:
        """Return the composition of the parts with these options."""
        return ComposedModality(
            [part.with_options(options) for part in self.parts],
            self.selected_channels,
            self.alignments,
        )

    def configured(self, card: Mapping[str, Any]) -> ComposedModality:
        """Configure every part, and bring the parts onto one grid as the card's alignments state.

        The intrinsics apply to all parts, since they are those of this grid.

        Raises:
            ConfigError: the alignments contradict each other.
        """
        alignments = alignments_of(card)
        parts = []
        for part in self.parts:
            parts.append(part.configured(self._card_of(part, card)))
        return ComposedModality(parts, self.selected_channels, alignments)

    def _card_of(
        self, part: ModalityAdapter, card: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the card with the alignments of a part's sources only, under the part's own names."""
        stated = card.get("alignment") or {}
        own_names = {joined: own for own, joined in self._sources[part.name].items()}
        found = {}
        for joined, values in stated.items():
            if joined in own_names:
                other = values["reference"]
                reference = own_names.get(other, f"{other} of another sensor")
                found[own_names[joined]] = {**values, "reference": reference}
        return {**card, "alignment": found}

    def load(self, files: PathsBySource) -> SensorImage:
        """Read every part that has files, bring it onto the grid of the first one, and stack the planes.

        Raises:
            DataError: parts differ in size, and no alignment is stated; or it is for images of another size.
        """
        images = {part.name: part.load(own) for part, own in self._present(files)}
        size_hw, warps = self._placed(
            files, {name: image.size_hw for name, image in images.items()}
        )
        for part, _ in self._present(files):
            warp = warps.get(part.name)
            if warp is not None:
                image = images[part.name]
                images[part.name] = warp(
                    image,
                    Window(0, 0, *size_hw),
                    Window(0, 0, *image.size_hw),
                    part.may_average(image.channels),
                )
        return self._stack(images)

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        """Return the size of the grid of all parts that have files; None if one cannot be read in windows.

        Raises:
            DataError: as `load`.
        """
        sizes = {}
        named = {}
        for part, own in self._present(files):
            size_hw = part.window_size(own)
            if size_hw is None:
                return None
            sizes[part.name] = size_hw
            named[part.name] = ", ".join(map(str, own.values()))
        grid_hw, warps = self._placed(files, sizes)
        for name in warps:
            sizes[name] = grid_hw
        return common_size(
            {named[name]: size for name, size in sizes.items()}, hint=ALIGN_HINT
        )

    def load_window(self, files: PathsBySource, window: Window) -> SensorImage:
        """Read the window of every part, and stack the planes; those not selected may have no valid pixel."""
        if len(self.parts) == 1 and self.selected_channels is not None:
            return (
                self.parts[0]
                .with_channels(self.selected_channels)
                .load_window(files, window)
            )
        present = self._present(files)
        warps: Mapping[str, Warp] = {}
        if self.alignments:
            sizes = {}
            for part, own in present:
                size_hw = part.window_size(own)
                if size_hw is not None:
                    sizes[part.name] = size_hw
            _, warps = self._placed(files, sizes)
        images = {}
        for part, own in present:
            warp = warps.get(part.name)
            if warp is None:
                images[part.name] = part.load_window(own, window)
                continue
            seen = warp.source_window(window)
            image = part.load_window(own, seen)
            images[part.name] = warp(
                image, window, seen, part.may_average(image.channels)
            )
        return self._stack(images)

    def _placed(
        self, files: PathsBySource, sizes: Mapping[str, tuple[int, int]]
    ) -> tuple[tuple[int, int], dict[str, Warp]]:
        """Return the (height, width) of the grid, and the warp of each part that is brought onto it.

        Args:
            files: those of the sample.
            sizes: sensor -> (height, width) of its image, for the parts that have files.
        """
        first = self.parts[0].name
        grid_hw = sizes.get(first) or next(iter(sizes.values()))
        from_reference = self._matrices(files)
        if first not in from_reference or not from_reference.keys() & sizes.keys():
            return grid_hw, {}
        self._check_sizes(files, sizes)
        if first not in sizes:
            grid_hw = self._stated_size(first)
        to_reference = np.linalg.inv(from_reference[first])
        warps = {}
        for name, matrix in from_reference.items():
            if name != first and name in sizes:
                warps[name] = Warp(matrix @ to_reference, sizes[name])
        return grid_hw, warps

    def _matrices(self, files: PathsBySource) -> dict[str, Matrix]:
        """Return sensor -> matrix from pixels of the reference of the alignments to those of the sensor."""
        found: dict[str, Matrix] = {}
        if len(self.parts) == 1:
            return found
        for part in self.parts:
            source = self._grid_source(part.name)
            alignment = self.alignments.get(source)
            if any(source == one.reference for one in self.alignments.values()):
                found[part.name] = np.eye(3)
            elif alignment is not None and alignment.matrix is not None:
                found[part.name] = np.asarray(alignment.matrix, np.float64)
            elif alignment is not None and source in files:
                found[part.name] = alignment.matrix_of(files[source])
        return found

    def _grid_source(self, name: str) -> str:
        """Return the name of the source that has the pixel grid of a part."""
        return next(iter(self._sources[name].values()))

    def _stated_size(self, name: str) -> tuple[int, int]:
        """Return the (height, width) that the alignments state for a part; DataError if they state none."""
        source = self._grid_source(name)
        for _, size_hw in self._stated_sizes(source):
            return size_hw
        raise DataError(
            f"the source {source!r}, which has the pixel grid, is missing, and the data card's alignment does not "
            "state its size; give its file, or state reference_size and size in the card"
        )

    def _stated_sizes(self, source: str) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield each aligned source whose alignment states the (height, width) of a source's images, and this size."""
        for other, alignment in self.alignments.items():
            stated = None
            if source == other:
                stated = alignment.size
            elif source == alignment.reference:
                stated = alignment.reference_size
            if stated is not None:
                yield other, (stated[1], stated[0])

    def _check_sizes(
        self, files: PathsBySource, sizes: Mapping[str, tuple[int, int]]
    ) -> None:
        """Raise DataError if an image has not the size that its alignment is for."""
        for name, size_hw in sizes.items():
            source = self._grid_source(name)
            for other, stated_hw in self._stated_sizes(source):
                if stated_hw != size_hw:
                    raise DataError(
                        f"{files[source]}: is {size_hw[1]}x{size_hw[0]}, but the alignment of {other} was estimated "
                        f"for images of {source} of {stated_hw[1]}x{stated_hw[0]} (width x height); give images as the "
                        "camera writes them, or run `simmat align` on images of this size"
                    )

    def transform(self, image: SensorImage) -> SensorImage:
        """Transform each part's planes, then keep the selected channels."""
        full = self._transform_all(image)
        if self.selected_channels is None:
            return full
        return full.select(
            pick_channels(full.channels, self.selected_channels, origin=image.origin)
        )

    def _transform_all(self, image: SensorImage) -> SensorImage:
        return self._stack(
            {part.name: part.transform(piece) for part, piece in self._pieces(image)}
        )

    def transform_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> tuple[Any, Any]:
        """Compute it for each part's planes, then keep the selected channels."""
        values, where = self._transform_all_arrays(data, valid, channels, library)
        if self.selected_channels is None:
            return values, where
        one = np.ones((len(channels), 1, 1), np.float32)
        full = self._transform_all(SensorImage(one, one > 0, tuple(channels)))
        selected = pick_channels(
            full.channels, self.selected_channels, origin=self.name
        )
        return (
            library.stack([values[..., index, :, :] for index in selected], -3),
            library.stack([where[..., index, :, :] for index in selected], -3),
        )

    def _transform_all_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> Any:
        if len(self.parts) == 1:
            return self.parts[0].transform_arrays(data, valid, channels, library)
        done = []
        for part, span in channel_spans(self, channels):
            own = _with_own_names(part, [channels[index] for index in span])
            rows = slice(span[0], span[-1] + 1)
            done.append(
                part.transform_arrays(
                    data[..., rows, :, :], valid[..., rows, :, :], own, library
                )
            )
        values, where = zip(*done, strict=True)
        return library.concatenate(values, -3), library.concatenate(where, -3)

    def is_log_scale(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Return it for each part's channels."""
        flags: list[bool] = []
        for part, span in channel_spans(self, channels):
            flags += part.is_log_scale(
                _with_own_names(part, [channels[index] for index in span])
            )
        return tuple(flags)

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        """Mirror each part's planes."""
        return self._stack(
            {part.name: part.flip(piece, axis) for part, piece in self._pieces(image)}
        )

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        """Rotate each part's planes."""
        return self._stack(
            {
                part.name: part.rotate(piece, quarter_turns)
                for part, piece in self._pieces(image)
            }
        )

    def simulate(self, scene: Any, rng: np.random.Generator) -> SensorImage:
        """Simulate each part's planes of the same scene."""
        return self._stack(
            {part.name: part.simulate(scene, rng) for part in self.parts}
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write each part's planes."""
        for part, piece in self._pieces(image):
            part.save(
                piece,
                {
                    own: files[joined]
                    for own, joined in self._sources[part.name].items()
                },
            )

    def _present(
        self, files: PathsBySource
    ) -> list[tuple[ModalityAdapter, PathsBySource]]:
        """Return the parts whose sources all have files, with those files."""
        present: list[tuple[ModalityAdapter, PathsBySource]] = []
        for part in self.parts:
            names = self._sources[part.name]
            if files.keys() >= set(names.values()):
                present.append(
                    (part, {own: files[joined] for own, joined in names.items()})
                )
        return present

    def _join(self, groups: Mapping[str, Sequence[Channel]]) -> tuple[Channel, ...]:
        """Join the channels of parts, sensor -> channels with the sensor's own names, into those of the composition."""
        joined: list[Channel] = []
        taken: set[str] = set()
        for part in self.parts:
            own = groups.get(part.name, ())
            joined += [
                replace(channel, name=_unique(part, channel.name, taken))
                for channel in own
            ]
            taken |= {channel.name for channel in (*part.channels, *own)}
        return tuple(joined)

    def _pieces(self, image: SensorImage) -> list[tuple[ModalityAdapter, SensorImage]]:
        """Return each part with its planes of a loaded image."""
        if len(self.parts) == 1:  # no copy of its planes
            return [(self.parts[0], image)]
        pieces = []
        for part, span in channel_spans(self, image.channels):
            piece = image.select(span)
            pieces.append(
                (part, replace(piece, channels=_with_own_names(part, piece.channels)))
            )
        return pieces

    def _stack(self, images: Mapping[str, SensorImage]) -> SensorImage:
        """Join images, sensor -> image, into one; DataError if their size or place differs."""
        found = list(images.values())
        if len(self.parts) == 1:
            return found[0]
        common_size(
            {f"{name} {image.origin}": image.size_hw for name, image in images.items()},
            hint=ALIGN_HINT,
        )
        return SensorImage(
            np.concatenate([image.data for image in found]),
            np.concatenate([image.valid for image in found]),
            self._join({name: image.channels for name, image in images.items()}),
            found[0].origin,
            _common_georeference(found),
            found[0].preview_hw,
        )


def _unique(part: ModalityAdapter, name: str, taken: Collection[str]) -> str:
    """Return the name of a part's source or channel in the composition, where earlier parts have `taken` some."""
    if name in taken:
        return f"{part.name}.{name}"
    return name


def _with_own_names(
    part: ModalityAdapter, channels: Sequence[Channel]
) -> tuple[Channel, ...]:
    """Return a part's channels of a composition with the part's own names."""
    return tuple(
        replace(channel, name=channel.name.removeprefix(f"{part.name}."))
        for channel in channels
    )


def _common_georeference(images: Sequence[SensorImage]) -> Georeference | None:
    """Return the georeference that images of one size state, if any; DataError if two differ."""
    placed = []
    for image in images:
        if image.georeference is not None:
            placed.append((image.origin, image.georeference))
    if not placed:
        return None
    height, width = images[0].size_hw
    # (4, 2) xy
    corners = np.asarray([(x, y) for x in (0, width) for y in (0, height)], np.float64)
    (origin, first), *others = placed
    pixel = max(abs(value) for value in (*first.transform[:2], *first.transform[3:5]))
    for other_origin, other in others:
        spelled_alike = first.crs.startswith("EPSG:") and other.crs.startswith("EPSG:")
        apart = np.abs(first.to_map(corners) - other.to_map(corners)).max()
        if (spelled_alike and first.crs != other.crs) or apart > _SAME_PLACE_PX * pixel:
            raise DataError(
                f"{other_origin}: its place on the earth, {other.crs} {other.transform}, is not that of {origin}, "
                f"{first.crs} {first.transform}; all sources of a sample must share one pixel grid"
            )
    return first

"""A sequence of frames, read one at a time: a video, a time series, the slices of a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from simmat.data.formats.frames import frame_name, place_problem, sequence_frames
from simmat.data.formats.manifest import MANIFEST_FILE, read_manifest
from simmat.errors import DataError, few_of
from simmat.io.frames import open_stack
from simmat.io.paths import frame_of
from simmat.plugins.loader import installed
from simmat.plugins.registry import Modality, Registry
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.sensors.normalize import describe
from simmat.types import Channel, SensorImage, same_channels


class FrameSequence(Sequence[SensorImage]):
    """The frames of one sequence in order; a frame is read when it is asked for, and none is kept.

    Attributes:
        adapter: the sensor.
        files: for each frame, source name -> file; a frame inside a file has a path such as `scan.tif/0012`.
        names: name of each frame: the name of its file without the ending, or its number in a file of frames.
    """

    def __init__(
        self,
        path: str | Path | Mapping[str, str | Path],
        modality: Modality,
        *,
        modality_options: Mapping[str, Any] | None = None,
        channels: Sequence[str | int] | None = None,
        axis: str = "z",
        registry: Registry | None = None,
    ) -> None:
        """Find the frames.

        Args:
            path: folder of the frames, in the order of the numbers in their names; or a multi-page TIFF, or an npy
                array (T, C, H, W); or, if a plugin reads it, a NIfTI file, a folder of DICOM slices, or a video; or
                DIR/manifest.csv/SEQUENCE of a data set. {source: path} for a sensor with several sources.
            modality: the sensor: a name, an adapter, or its class.
            modality_options: options of the sensor: {"unit": "cK"}.
            channels: names, 0-based indices or wavelengths of the channels to use; None for all.
            axis: axis along which a volume is sliced: "x", "y" or "z".
            registry: what is installed; None loads the plugins.

        Raises:
            DataError: there are no frames, their order is not known, or sources have different numbers of them.
        """
        known, name = (registry or installed()).with_modality(modality)
        adapter = known.modality(name or "", modality_options, channels=channels)
        self._set(adapter, frame_files(adapter, path, axis))

    @classmethod
    def of_frames(
        cls, adapter: ModalityAdapter, files: Sequence[Mapping[str, Path]]
    ) -> FrameSequence:
        """Return the sequence of the files of frames, in order, such as `Sample.files`; at least one frame."""
        made = cls.__new__(cls)
        made._set(adapter, files)
        return made

    def _set(
        self, adapter: ModalityAdapter, files: Sequence[Mapping[str, Path]]
    ) -> None:
        self.adapter = adapter
        self.files = tuple(files)
        reference = adapter.sources[0]
        self.names = tuple(
            frame_name(own[reference.name], reference.extensions) for own in self.files
        )
        self._first: tuple[tuple[int, int], tuple[Channel, ...], str] | None = None

    def __repr__(self) -> str:
        """Name the first file and the number of frames."""
        return f"<FrameSequence of {len(self)} frames of {self.adapter.name}: {', '.join(self.names[:1])} …>"

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> SensorImage: ...
    @overload
    def __getitem__(self, index: slice) -> FrameSequence: ...
    def __getitem__(self, index: int | slice) -> SensorImage | FrameSequence:
        """Read a frame (C, H, W); return a slice as a sequence.

        Raises:
            DataError: it cannot be read, or has another size or other channels than the frame that was read first.
        """
        if isinstance(index, slice):
            return FrameSequence.of_frames(self.adapter, self.files[index])
        image = load_sample(self.adapter, self.files[index])
        size_hw, channels, origin = self._first = self._first or (
            image.size_hw,
            image.channels,
            image.origin,
        )
        if image.size_hw != size_hw or not same_channels(image.channels, channels):
            kinds = (image.size_hw, image.channels), (size_hw, channels)
            one, other = (
                f"{width}x{height} of {describe(of)}" for (height, width), of in kinds
            )
            raise DataError(
                f"{image.origin}: is {one}, but {origin} of the same sequence is {other}; make two of them"
            )
        return image

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres from frame to frame, row to row and column to column; None if the file does not say."""
        frame = frame_of(next(iter(self.files[0].values()))) if self.files else None
        if frame is None:
            return None
        return open_stack(frame.file, frame.axis).spacing_mm


def frame_files(
    adapter: ModalityAdapter,
    path: str | Path | Mapping[str, str | Path],
    axis: str = "z",
) -> list[dict[str, Path]]:
    """Return source name -> file of each frame of a sequence, in order; see `FrameSequence`."""
    if not isinstance(path, Mapping):
        for file in (Path(path), *Path(path).parents):
            if file.name == MANIFEST_FILE and file.is_file():
                return _frames_of_manifest(
                    adapter, file, Path(path).relative_to(file).as_posix()
                )
    given = path if isinstance(path, Mapping) else {adapter.source_names()[0]: path}
    if set(given) != set(adapter.source_names()):
        needed, got = (", ".join(names) for names in (adapter.source_names(), given))
        raise DataError(
            f"modality {adapter.name!r} has the sources {needed}, got frames of {got}; give those of each: "
            "--source NAME=SEQ, in Python {name: path}"
        )
    found = {}
    for one in adapter.sources:
        found[one.name] = sequence_frames(Path(given[one.name]), one.extensions, axis)
    if len({len(frames) for frames in found.values()}) > 1:
        counts = ", ".join(
            f"{given[source]} has {len(frames)}" for source, frames in found.items()
        )
        raise DataError(
            f"the sources of a sequence have different numbers of frames: {counts}"
        )
    problem = place_problem(frames[0] for frames in found.values())
    if problem:
        raise DataError(problem)
    return [
        dict(zip(found, paths, strict=True))
        for paths in zip(*found.values(), strict=True)
    ]


def _frames_of_manifest(
    adapter: ModalityAdapter, manifest: Path, sequence: str
) -> list[dict[str, Path]]:
    """Return the files of the frames of a sequence of a manifest; "." is its only sequence."""
    samples = sorted(
        read_manifest(manifest.parent, adapter.sources, masks=False),
        key=lambda one: one.frame,
    )
    names = sorted({one.sequence for one in samples} - {""})
    sequence = names[0] if sequence == "." and len(names) == 1 else sequence
    if sequence not in names:
        raise DataError(
            f"{manifest}: its sequences are {few_of(names) or 'none'}; give one: {manifest}/SEQUENCE"
        )
    return [dict(one.files) for one in samples if one.sequence == sequence]

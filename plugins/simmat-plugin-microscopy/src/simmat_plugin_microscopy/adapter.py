"""`microscopy`: the channels of one time and one slice, with their names, emission wavelengths and the pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from simmat_plugin_guess.facts import FilesOfKind, Recognition

from simmat import (
    ModalityAdapter,
    ModalityOptions,
    PathsBySource,
    SensorImage,
    Source,
    Window,
    WindowedAdapter,
)
from simmat.errors import DataError, SimMATError, did_you_mean
from simmat.io.limits import check_size, check_window, decoding_errors
from simmat.io.paths import FrameAddress, frame_of
from simmat.sensors.builtin import narrowest
from simmat.sensors.channel_selection import pick_channels
from simmat.types import not_nodata
from simmat_plugin_microscopy.ome_tiff import write_ome_tiff
from simmat_plugin_microscopy.readers import ENDINGS
from simmat_plugin_microscopy.scenes import (
    MicroscopeFile,
    Scene,
    make_channels,
    project,
)
from simmat_plugin_microscopy.stack import open_file

_TIFF = (".ome.tif", ".ome.tiff", ".tif", ".tiff")


class MicroscopyOptions(ModalityOptions):
    """Which image of a file is read."""

    scene: int | str | None = Field(
        None,
        description="Name of the scene, or its number from 0, in a file that holds several.",
    )
    z: int | Literal["max"] | None = Field(
        None,
        description="Slice, from 0, of a file that holds several, or max for the largest number over all slices.",
    )
    t: int | None = Field(
        None, description="Time, from 0, of a file that holds several."
    )


class Microscopy(WindowedAdapter):
    """The channels of one time and one slice of a scene, in the numbers that are stored.

    Files with several scenes, times or slices need an option that chooses one, unless a frame is read: `FILE/0012`.
    """

    name = "microscopy"
    description = "microscopes: OME-TIFF, OME-Zarr, ND2, LIF, CZI; channels by name, counts as stored, pixel size"
    sources = (Source("microscopy", (*_TIFF, ".ome.zarr", *ENDINGS)),)

    Options: ClassVar[type[ModalityOptions]] = MicroscopyOptions
    options: MicroscopyOptions
    _picks: tuple[str | int, ...] = ()

    def read(self, files: PathsBySource, window: Window | None) -> SensorImage:
        """Read (C, H, W) counts; their number of bits is that of the file."""
        path = Path(files["microscopy"])
        frame = frame_of(path)
        file = path if frame is None else frame.file
        opened = open_file(file)
        kind = file.suffix.lower().removeprefix(".")
        with decoding_errors(file, kind):
            number, scene = self._scene(opened, frame)
            times, slices = self._planes(opened, scene, frame)
            part = Window(0, 0, *scene.size_hw) if window is None else window
            check_window(path, part, scene.size_hw)
            picked = list(range(len(scene.channels)))
            if self._picks and window is not None:
                picked = sorted(
                    pick_channels(scene.channels, self._picks, origin=str(path))
                )
            check_size(path, *part.size_hw, len(scene.channels))
            planes = project(
                [opened.read(number, times, z, picked, part) for z in slices]
            )
        data = np.zeros((len(scene.channels), *part.size_hw), planes.dtype)
        valid = np.zeros(data.shape, np.bool_)
        data[picked] = planes
        valid[picked] = not_nodata(planes, self.nodata("microscopy"))
        image = SensorImage.from_planes(
            data, scene.channels, valid=valid, origin=str(path)
        )
        return replace(image, pixel_size_um=scene.pixel_size_um)

    def window_size(self, files: PathsBySource) -> tuple[int, int]:
        """Return the size of the scene."""
        path = Path(files["microscopy"])
        frame = frame_of(path)
        file = path if frame is None else frame.file
        opened = open_file(file)
        with decoding_errors(file, file.suffix.lower().removeprefix(".")):
            _, scene = self._scene(opened, frame)
        return scene.size_hw

    def with_channels(self, selected: Sequence[str | int]) -> ModalityAdapter:
        """Return this sensor with only these channels read in windows."""
        made = copy(self)
        made._picks = tuple(selected)
        return made

    def recognize(self, files: FilesOfKind) -> Recognition | None:
        """Find the formats of microscopes, and OME-XML in a TIFF."""
        path = files.first.path
        frame = frame_of(path)
        file = path if frame is None else frame.file
        ending = file.suffix.lower()
        if ending not in ENDINGS and ending not in _TIFF:
            return None
        try:
            scene = open_file(file).scene(0)
        except SimMATError:  # such as a TIFF without OME-XML
            return None
        evidence = [f"the file {file.name} is one of a microscope"]
        if scene.pixel_size_um is None:
            question = (
                "What is the side of a pixel in µm? The files do not state it; for areas in µm² add --pixel-size-um "
                "NUMBER to simmat predict --measure"
            )
        else:
            height, width = scene.pixel_size_um
            evidence.append(f"it states pixels of {width:g} x {height:g} µm")
            question = (
                "Are the numbers counts of the camera? They are read as they are stored"
            )
        return Recognition("stated", tuple(evidence), questions=(question,))

    def simulate(self, scene: Any, rng: np.random.Generator) -> SensorImage:
        """Return one channel of 16 bits: the scene's picture of a monochrome camera, which shows no cells."""
        counts = 100.0 * scene.gray_counts(rng)
        return SensorImage.from_planes(
            counts, make_channels([None], [None]), origin="simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write an OME-TIFF: whole counts as integers, all else as float32, invalid pixels as NaN."""
        write_ome_tiff(Path(files["microscopy"]), image, narrowest(image))

    def _scene(
        self, opened: MicroscopeFile, frame: FrameAddress | None
    ) -> tuple[int, Scene]:
        """Return the number of the scene that is read, and the scene."""
        names = opened.scene_names
        wanted = self.options.scene
        listed = ", ".join(f"{place} {name}" for place, name in enumerate(names[:20]))
        if wanted is None:
            if len(names) != 1:
                raise DataError(
                    f"{opened.path}: holds {len(names)} scenes: {listed}; choose one: --modality-option scene=NAME, or "
                    "its number"
                )
            return 0, opened.scene(0)
        if str(wanted) in names:
            number = names.index(str(wanted))
        elif str(wanted).isdecimal() and int(wanted) < len(names):
            number = int(wanted)
        else:
            hint = did_you_mean(str(wanted), names, otherwise="")
            raise DataError(
                f"{opened.path}: has no scene {str(wanted)!r}{hint}; its scenes are {listed}"
            )
        if frame is not None and len(names) > 1 and opened.path.suffix.lower() in _TIFF:
            raise DataError(
                f"{opened.path}: holds {len(names)} scenes, so its frames are not numbered; save each scene as a file"
            )
        return number, opened.scene(number)

    def _planes(
        self, opened: MicroscopeFile, scene: Scene, frame: FrameAddress | None
    ) -> tuple[int, Sequence[int]]:
        """Return the time and the slices that are read."""
        path = opened.path
        t, z = self.options.t, self.options.z
        if frame is not None:
            chosen = t if scene.frame_axis == "t" else z
            if chosen is not None:
                raise DataError(
                    f"{path}: its frames lie along {scene.frame_axis}, so option {scene.frame_axis}={chosen} does not "
                    "apply to them; leave it out, or give the file instead of its frames"
                )
            if frame.number >= scene.frames:
                raise DataError(
                    f"{path}: scene {scene.name!r} has the frames 0 to {scene.frames - 1}, no frame {frame.number}"
                )
            if scene.frame_axis == "t":
                t = frame.number
            else:
                z = frame.number
        if z == "max":
            return _one(path, "t", t, scene.times), range(scene.slices)
        return _one(path, "t", t, scene.times), [_one(path, "z", z, scene.slices)]


def _one(path: Path, axis: str, wanted: int | None, count: int) -> int:
    """Return which time or slice is read; DataError if it is not there, or one must be chosen."""
    what = {"t": "times", "z": "slices"}[axis]
    if wanted is None:
        if count == 1:
            return 0
        largest = ", or z=max for the largest number over all" if axis == "z" else ""
        raise DataError(
            f"{path}: holds {count} {what}; choose one from 0 to {count - 1}: --modality-option {axis}=0{largest}; or "
            "follow objects through its frames: simmat follow"
        )
    if not 0 <= wanted < count:
        raise DataError(
            f"{path}: has no {axis} {wanted}; its {what} are 0 to {count - 1}"
        )
    return wanted


MODALITIES: tuple[ModalityAdapter, ...] = (Microscopy(),)
"""Ready instances."""

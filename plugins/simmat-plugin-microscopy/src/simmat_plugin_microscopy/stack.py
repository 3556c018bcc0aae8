"""The frames of a file: its times, or its slices if it has only one time."""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from pathlib import Path

from simmat import Window
from simmat.errors import DataError
from simmat.io.limits import check_size, decoding_errors
from simmat.io.states import FileState, content_states
from simmat.io.tiff import TIFF_ENDINGS
from simmat.types import ImageFile
from simmat_plugin_microscopy.ome_tiff import OmeTiff
from simmat_plugin_microscopy.readers import BioioFile
from simmat_plugin_microscopy.scenes import MicroscopeFile, Scene

_ZARR_HEADS = ("zarr.json", ".zattrs", ".zgroup")


def open_file(path: Path) -> MicroscopeFile:
    """Open a file; the last few stay open, until they change.

    Raises:
        DataError: it is missing or damaged.
        ConfigError: the package that reads it is not installed.
    """
    return _opened(path, _states(path), os.getpid(), threading.get_ident())


def _states(path: Path) -> tuple[FileState, ...]:
    """Return what changes with a file; of an OME-Zarr, whose chunks are read anew each time, its heads."""
    files = [path]
    if path.is_dir():
        files += [path / name for name in _ZARR_HEADS if (path / name).exists()]
    states: list[FileState] = []
    for file in files:
        if file.is_dir():
            status = file.stat()
            states.append(
                FileState(file.name, 0, status.st_mtime_ns, status.st_ctime_ns)
            )
        elif file.exists():
            states += content_states(file)
    return tuple(states)


@lru_cache(maxsize=4)
def _opened(
    path: Path, _states: tuple[FileState, ...], _process: int, _thread: int
) -> MicroscopeFile:
    kind = path.suffix.lower().removeprefix(".")
    with decoding_errors(path, kind):
        if path.suffix.lower() in TIFF_ENDINGS:
            return OmeTiff(path)
        return BioioFile(path)


class MicroscopeStack:
    """The frames of the scenes' first; as `simmat.io.frames.Stack`."""

    affine = None

    def __init__(self, path: Path, axis: str) -> None:
        self.path = path
        self._file = open_file(path)
        scenes = [
            self._file.scene(number) for number in range(len(self._file.scene_names))
        ]
        counts = {scene.frames for scene in scenes}
        if len(counts) > 1:
            listed = ", ".join(f"{scene.name!r} has {scene.frames}" for scene in scenes)
            raise DataError(
                f"{path}: its scenes have different numbers of frames: {listed}; export one scene"
            )
        self._scene: Scene = scenes[0]
        self.size_hw = self._scene.size_hw
        z, height, width = self._scene.pixel_um
        self.spacing_mm = None
        if self._scene.frame_axis == "z" and z and height and width:
            self.spacing_mm = (z / 1000, height / 1000, width / 1000)

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._scene.frames

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read all channels of one frame of a file with one scene."""
        scene = self._scene
        if len(self._file.scene_names) > 1 or (
            scene.frame_axis == "t" and scene.slices > 1
        ):
            raise DataError(
                f"{self.path}: has several scenes, or slices of each time; use --modality microscopy, whose options "
                "scene and z choose one"
            )
        t, z = (index, 0) if scene.frame_axis == "t" else (0, index)
        picked = range(len(scene.channels))
        check_size(self.path, *scene.size_hw, len(picked))
        planes = self._file.read(0, t, z, picked, Window(0, 0, *scene.size_hw))
        return ImageFile(
            planes, "volume", "gray" if len(planes) == 1 else "planes", self.path
        )

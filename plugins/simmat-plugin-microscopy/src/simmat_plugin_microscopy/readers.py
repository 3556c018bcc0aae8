"""CZI, ND2, LIF and OME-Zarr through the readers of bioio, each of which an extra of this package installs."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat import Window
from simmat.errors import ConfigError, DataError
from simmat.io.limits import check_size
from simmat.io.paths import is_image_folder, require_file
from simmat_plugin_microscopy.scenes import Scene, checked_size_um, make_channels
from simmat_plugin_microscopy.zarr_heads import check_heads

_READERS = {
    ".czi": ("bioio_czi", "czi"),
    ".nd2": ("bioio_nd2", "nd2"),
    ".lif": ("bioio_lif", "lif"),
    ".zarr": ("bioio_ome_zarr", "zarr"),
}
"""Ending -> the module that reads such files, and the extra that installs it."""
ENDINGS = tuple(_READERS)
_CZI_PLANE_BYTES = 128
"""Least bytes of the entries that each plane has in a CZI."""
_CZI_MOST_AXES = 40
_CZI_MOST_SCENES = 1_000_000
"""Numbers of scenes beyond which a CZI is damaged: its reader goes through all of them, also those without an image."""
_LIF_HEAD = b"\x70\0\0\0"
_COLOURS = ("red", "green", "blue")


class BioioFile:
    """A file that a reader of bioio opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        ending = path.suffix.lower()
        if ending == ".zarr":
            if not is_image_folder(path):
                raise DataError(f"{path}: no such folder; an OME-Zarr is a folder")
            check_heads(path)
        else:
            require_file(path, "image")
            with path.open("rb") as stream:
                head = stream.read(4)
            # an XML of the same maker, which liffile reads too, names other files
            if ending == ".lif" and head != _LIF_HEAD:
                raise DataError(
                    f"{path}: not a LIF file, which begins with the bytes 70 00 00 00; copy it again, or give the file "
                    "its true ending"
                )
        module, extra = _READERS[ending]
        self._open = _reader(module, extra, ending)
        if ending == ".czi":
            _check_czi(path)
        self._groups = _groups(path) if ending == ".zarr" else ()
        self._reader: Any = None
        self._opened = ""
        if self._groups:
            self.scene_names = self._groups
        else:
            self._reader = self._open(str(path.absolute()))
            self.scene_names = tuple(map(str, self._reader.scenes))
            if not self.scene_names:
                raise DataError(
                    f"{path}: states no image; it is damaged, or not a file of a microscope. For a Zarr store of other "
                    "bands: --modality multispectral"
                )

    def _of(self, number: int) -> Any:
        """Return the reader, set to a scene."""
        if not self._groups:
            if self._reader.current_scene_index != number:
                self._reader.set_scene(number)
        elif self._opened != self._groups[number]:
            self._opened = self._groups[number]
            self._reader = self._open(str(self.path.absolute() / self._opened))
        return self._reader

    def scene(self, number: int) -> Scene:
        """Return what the file states of a scene."""
        reader = self._of(number)
        sizes = dict(zip(reader.dims.order, reader.dims.shape, strict=True))
        others = {
            axis: size
            for axis, size in sizes.items()
            if axis not in "TCZYXS" and size > 1
        }
        if others:
            raise DataError(
                f"{self.path}: has the further axes {others}, which are not read; export single images"
            )
        count = sizes.get("C", 1)
        names = [str(name) for name in reader.channel_names or ()]
        if len(names) != count:
            names = [""] * count
        emissions = _emissions(reader, number, count)
        colours = sizes.get("S", 1)
        if colours > 1:
            names = [
                f"{name} {colour}" if count > 1 else colour
                for name in names
                for colour in _COLOURS[:colours]
            ]
            emissions = [None] * len(names)
        ending = self.path.suffix.lower()
        is_calibrated = ending != ".nd2" or _is_calibrated(self.path)
        stated = reader.physical_pixel_sizes
        pixel_um = []
        for axis in "ZYX":
            size = getattr(stated, axis, None)
            if ending == ".zarr":
                size = _in_um(reader, axis, size)
            elif ending == ".nd2" and not is_calibrated:
                size = None  # 1 by default
            if axis == "Z" and size == 0:
                size = None  # pylibCZIrw writes it by default
            pixel_um.append(checked_size_um(self.path, axis.lower(), size))
        return Scene(
            self.scene_names[number],
            sizes.get("T", 1),
            sizes.get("Z", 1),
            (sizes["Y"], sizes["X"]),
            make_channels(names, emissions),
            (pixel_um[0], pixel_um[1], pixel_um[2]),
        )

    def read(
        self, number: int, t: int, z: int, picked: Sequence[int], window: Window
    ) -> npt.NDArray[Any]:
        """Read planes (P, h, w)."""
        reader = self._of(number)
        dtype = np.dtype(reader.dtype)
        check_size(
            self.path, *window.size_hw, len(picked), itemsize=max(dtype.itemsize, 4)
        )
        rows, columns = window.slices
        order = reader.dims.order
        where: dict[str, Any] = {"Y": rows, "X": columns}
        if "T" in order:
            where["T"] = t
        if "Z" in order:
            where["Z"] = z
        if "S" in order:
            found = reader.get_image_data("CSYX", **where)
            found = found.reshape(-1, *found.shape[-2:])[list(picked)]
        else:
            where["C"] = list(picked) if "C" in order else 0
            found = reader.get_image_data("CYX" if "C" in order else "YX", **where)
            found = found.reshape(-1, *found.shape[-2:])
        if found.shape != (len(picked), *window.size_hw):
            raise DataError(
                f"{self.path}: damaged or cut short: its planes have shape {found.shape}, not "
                f"{(len(picked), *window.size_hw)}"
            )
        return np.asarray(found)


def _reader(module: str, extra: str, ending: str) -> Any:
    """Return the class that reads such files; ConfigError says which extra installs it."""
    try:
        return import_module(module).Reader
    except ImportError as error:
        raise ConfigError(
            f"{ending} files need {module.replace('_', '-')}: pip install 'simmat-plugin-microscopy[{extra}]' ({error})"
        ) from error


def _check_czi(path: Path) -> None:
    """Raise DataError for a CZI that claims more planes than it has bytes for; its reader makes a table of them all."""
    _check_czi_directory(path)
    most = path.stat().st_size // _CZI_PLANE_BYTES
    with path.open("rb") as stream:
        scenes = import_module("aicspylibczi").CziFile(stream).get_dims_shape()
    for scene in scenes:
        planes = 1
        for axis, (first, end) in scene.items():
            if axis not in "XYA":
                planes *= end - first
        if not 0 < planes <= most:
            raise DataError(
                f"{path}: claims {planes} planes, but has room for {most}; it is damaged or cut short"
            )


def _check_czi_directory(path: Path) -> None:
    """Raise DataError if the list of planes of a CZI is damaged, which makes its reader crash or fill the memory.

    The layout is that of Zeiss's specification of the format: the segment at the position that the header states, with
    a head of 160 bytes, then for each plane 32 bytes and 20 for each axis.
    """
    damaged = DataError(
        f"{path}: its list of planes is damaged, or the file is cut short; copy it again"
    )
    with path.open("rb") as stream:
        stream.seek(84)
        position = int.from_bytes(stream.read(8), "little")
        if position >= path.stat().st_size:
            raise damaged
        stream.seek(position)
        head = stream.read(160)
        planes = int.from_bytes(head[32:36], "little")
        if not head.startswith(b"ZISRAWDIRECTORY") or planes == 0:
            raise damaged
        for _ in range(planes):
            axes = int.from_bytes(stream.read(32)[28:], "little")
            if not 0 < axes <= _CZI_MOST_AXES:
                raise damaged
            stated = stream.read(20 * axes)
            if len(stated) < 20 * axes:
                raise damaged
            for axis, start, size in struct.iter_unpack("<4sii8x", stated):
                if axis.startswith(b"S"):
                    _check_scene(path, start)
                    _check_scene(path, start + size)


def _check_scene(path: Path, number: int) -> None:
    """Raise DataError for a scene with an absurd number."""
    if abs(number) > _CZI_MOST_SCENES:
        raise DataError(
            f"{path}: has a scene with the number {number}, above {_CZI_MOST_SCENES}; it is damaged, copy it again"
        )


def _groups(path: Path) -> tuple[str, ...]:
    """Return the images of an OME-Zarr as bioformats2raw writes it: groups named by numbers; () for any other."""
    import zarr

    stated = zarr.open_group(str(path.absolute()), mode="r").attrs.asdict()
    inside = stated.get("ome")
    keys = {*stated, *(inside if isinstance(inside, dict) else {})}
    if "bioformats2raw.layout" not in keys:
        return ()
    numbers = [
        one.name for one in path.iterdir() if one.is_dir() and one.name.isdigit()
    ]
    if not numbers:
        raise DataError(f"{path}: holds no image; it is cut short, or not an OME-Zarr")
    return tuple(sorted(numbers, key=int))


def _emissions(reader: Any, number: int, count: int) -> list[float | None]:
    """Return the emission wavelength of each channel in nm; None where the file does not say."""
    unknown: list[float | None] = [None] * count
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what files leave empty
            images = reader.ome_metadata.images
    except Exception:  # only a part of what files state is known to the readers
        return unknown
    channels = images[min(number, len(images) - 1)].pixels.channels if images else []
    if len(channels) != count:
        return unknown
    found = []
    for channel in channels:
        stated = channel.emission_wavelength_quantity
        found.append(None if stated is None else float(stated.to("nm").magnitude))
    return found


def _is_calibrated(path: Path) -> bool:
    """Return whether an ND2 file states the size of its pixels."""
    import nd2

    with nd2.ND2File(str(path.absolute())) as file:
        for channel in getattr(file.metadata, "channels", None) or ():
            return all(channel.volume.axesCalibrated[:2])
    return False


def _in_um(reader: Any, axis: str, size: float | None) -> float | None:
    """Return a size of an OME-Zarr in µm; None without a unit of length, since 1 is then a default."""
    unit = getattr(reader.dimension_properties, axis).unit
    if size is None or unit is None:
        return None
    try:
        return float((size * unit).to("micrometer").magnitude)
    except Exception:  # pint's errors have several classes
        return None

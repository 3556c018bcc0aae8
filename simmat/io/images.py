"""Read and write the planes of an image file, and what the stored numbers mean: valid or nodata, unit, bits.

Formats are PNG, JPEG, TIFF, BMP and npy; a path may also be that of a frame, see `simmat.io.frames`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError
from simmat.io.files import atomic_path
from simmat.io.frames import frame_size, map_npy, npy_image, read_frame
from simmat.io.limits import check_size, check_window, decoding_errors
from simmat.io.paths import frame_of, require_file
from simmat.io.reading import parse_json
from simmat.io.tiff import TiffImage, open_tiff
from simmat.types import BoolArray, Colour, ImageFile, SensorImage, Window

_FORMATS: dict[str, tuple[tuple[bytes, ...], tuple[str, ...]]] = {
    "png": ((b"\x89PNG\r\n\x1a\n",), (".png",)),
    "jpeg": ((b"\xff\xd8\xff",), (".jpg", ".jpeg")),
    "tiff": ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), (".tif", ".tiff")),
    "npy": ((b"\x93NUMPY",), (".npy",)),
    "bmp": ((b"BM",), (".bmp",)),
}
"""Format -> first bytes, file endings."""
_IMAGES = ("png", "jpeg", "tiff", "npy")
_LABELS = ("png", "tiff", "npy", "bmp")
PNG_KINDS = ((1, "uint8"), (1, "uint16"), (3, "uint8"))
"""Planes and type that a PNG is written of."""


def read_image(
    path: Path | str, nodata: float | None = None, window: Window | None = None
) -> ImageFile:
    """Read the planes of an image file, or the part of them in a window.

    Of a TIFF, only the tiles or strips that the window touches are decoded, of an npy file only its pixels are read.
    Other formats are decoded as a whole.

    Args:
        path: a PNG, JPEG, TIFF or npy file, whose ending must agree with its content; or a frame of a file, see
            `simmat.io.frames`.
        nodata: the stored number that the user calls nodata, see `ModalityAdapter.nodata`.
        window: the part to read; None for the whole image.

    Raises:
        DataError: the file is missing, damaged, of another format, larger than `check_size` allows (of a TIFF or npy
            file: the window is), or ambiguous; or the window reaches beyond it.
    """
    file = Path(path)
    found = _checked(_read(file, labels=False, window=window))
    if nodata is None:
        return found
    return replace(found, nodata=(*found.nodata, nodata))


def has_image_ending(path: Path) -> bool:
    """Return whether a path ends like the name of an image; of a TIFF or npy, one of frames is named FILE/NUMBER."""
    return any(path.suffix.lower() in endings for _, endings in _FORMATS.values())


def image_size(path: Path | str, *, labels: bool = False) -> tuple[int, int]:
    """Return the (height, width) of an image file in pixels, of any size, without decoding it.

    Args:
        labels: True for a label image, which `read_labels` takes.

    Raises:
        DataError: as `read_image`, for what the head of the file shows.
    """
    file = Path(path)
    frame = frame_of(file)
    if frame is not None:
        return frame_size(frame)
    kind = _format_of(file, _LABELS if labels else _IMAGES)
    with decoding_errors(file, kind):
        if kind == "tiff":
            return open_tiff(file, labels=labels).size_hw
        if kind == "npy":
            height, width = _map_npy(file).shape[1:]
            return int(height), int(width)
        depth = _png_depth(file) if kind == "png" else 8
        with _open_pillow(file, kind) as image:
            _refuse_mode(file, image, depth, palette=labels)
            return int(image.height), int(image.width)


def window_size(path: Path | str) -> tuple[int, int] | None:
    """Return the `image_size` of a TIFF or npy file; None for other formats, which are only decoded whole."""
    file = Path(path)
    frame = frame_of(file)
    if frame is None:
        has_windows = _format_of(file, _IMAGES) in ("tiff", "npy")
    else:
        has_windows = frame.file.suffix.lower() in (".tif", ".tiff", ".npy")
    if has_windows:
        return image_size(file)
    return None


def read_labels(path: Path | str, window: Window | None = None) -> ImageFile:
    """Read a label image: the stored numbers of one plane; of a palette image its indices.

    Args:
        path: a PNG, TIFF, npy or BMP file, whose ending must agree with its content; or a frame of a file.

    Raises:
        DataError: as `read_image`; or the format or its compression changes values.
    """
    file = Path(path)
    return _checked(_read(file, labels=True, window=window), bits=64)


def write_image(
    path: Path | str,
    planes: npt.NDArray[Any],
    *,
    description: str = "",
    colour: Colour = "planes",
) -> None:
    """Write planes so that `read_image` returns the same numbers, to a format given by the path's ending.

    Args:
        path: PNG takes one or three planes of uint8, or one of uint16; TIFF and npy take any.
        planes: (P, H, W).
        description: TIFF ImageDescription; other formats refuse one.
        colour: "rgb" for a TIFF that says that its planes are red, green, blue; a PNG of three planes always does.

    Raises:
        ConfigError: the format cannot hold these planes or the description.
        OutputError: the file cannot be written.
    """
    file = Path(path)
    ending = file.suffix.lower()
    fits_png = (len(planes), str(planes.dtype)) in PNG_KINDS
    takes = {
        ".tif": True,
        ".tiff": True,
        ".npy": not description,
        ".png": not description and fits_png,
    }
    if not takes.get(ending):
        raise ConfigError(
            f"{file}: {len(planes)} planes of {planes.dtype} cannot be written there; use .tif, .npy (without a "
            "description), or .png (one plane of uint8 or uint16, or three of uint8)"
        )
    plane = planes[0] if len(planes) == 1 else planes  # (H, W) or (P, H, W)
    with atomic_path(file) as temporary:
        if ending == ".npy":
            np.save(temporary, plane, allow_pickle=False)
        elif ending == ".png":
            from PIL import Image

            # (H, W) or (H, W, 3)
            interleaved = plane if plane.ndim == 2 else np.moveaxis(plane, 0, 2)
            Image.fromarray(np.ascontiguousarray(interleaved)).save(temporary)
        else:
            import tifffile

            tifffile.imwrite(
                temporary,
                plane,
                photometric="rgb" if colour == "rgb" else "minisblack",
                planarconfig=None if len(planes) == 1 else "separate",
                compression="zlib",
                predictor=planes.dtype.kind in "ui",
                description=description or None,
                # with `software`: no date and version, so equal planes give equal bytes
                metadata=None,
                software=False,
            )


def _format_of(path: Path, allowed: tuple[str, ...]) -> str:
    """Return the format by content; the file's ending must agree with it."""
    require_file(path, "image")
    try:
        with open(path, "rb", buffering=0) as stream:
            head = stream.read(16)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    if not head:
        raise DataError(f"{path}: the file is empty")
    kind = None
    claimed = None
    for name, (magic, endings) in _FORMATS.items():
        if head.startswith(magic):
            kind = name
        if path.suffix.lower() in endings:
            claimed = name
    if kind is None or kind not in allowed:
        names = ", ".join(name if name == "npy" else name.upper() for name in allowed)
        but = f", but a {kind.upper()}" if kind else ""
        raise DataError(
            f"{path}: not a file of {names}{but}; convert it to one of these"
        )
    if claimed not in (kind, None):
        _, endings = _FORMATS[kind]
        raise DataError(
            f"{path}: named {path.suffix} but its content is {kind.upper()}; rename it to {path.stem}{endings[0]}"
        )
    return kind


def _read(path: Path, *, labels: bool, window: Window | None = None) -> ImageFile:
    frame = frame_of(path)
    if frame is not None:
        return read_frame(frame, labels=labels, window=window)
    kind = _format_of(path, _LABELS if labels else _IMAGES)
    with decoding_errors(path, kind):
        if kind == "npy":
            return npy_image(path, _map_npy(path), window, itemsize=8 if labels else 4)
        if kind == "tiff":
            if window is None:
                return TiffImage(path, labels=labels).read()
            return open_tiff(path, labels=labels).read(window)
        found = _read_pillow(path, kind, labels=labels)
        if window is None:
            return found
        height, width = found.planes.shape[1:]
        check_window(path, window, (height, width))
        return replace(found, planes=found.planes[:, *window.slices])


def _map_npy(path: Path) -> npt.NDArray[Any]:
    """Map an array (H, W) or (P, H, W) as (P, H, W); three axes always have this order, whatever their sizes."""
    array = map_npy(path)
    if array.ndim not in (2, 3):
        raise DataError(
            f"{path}: an array must be (H, W) or (P, H, W), got shape {array.shape}"
        )
    if array.ndim == 3 and array.shape[0] > 64 and array.shape[2] <= 16:
        raise DataError(
            f"{path}: an array of three axes is read as (planes, height, width), but shape {array.shape} looks like "
            "(height, width, planes); save it as np.save(path, array.transpose(2, 0, 1))"
        )
    if array.ndim == 2:
        array = np.asarray(array[None])
    return array  # (P, H, W)


def _read_pillow(path: Path, kind: str, *, labels: bool) -> ImageFile:
    """Read a PNG, JPEG or BMP through Pillow, where it gives the stored numbers."""
    depth = _png_depth(path) if kind == "png" else 8
    with _open_pillow(path, kind) as image:
        mode = image.mode
        check_size(
            path,
            image.height,
            image.width,
            len(image.getbands()),
            itemsize=8 if labels else 4,
        )
        _refuse_mode(path, image, depth, palette=labels)
        image.load()
        values = np.asarray(image)
        description = str(image.info.get("Description", ""))
    # Pillow scales 2- and 4-bit grey to 0..255; undo it
    if depth in (2, 4) and mode == "L":
        values = values // np.uint8(255 // (2**depth - 1))
    # older Pillow holds 16-bit grey in 32 bits
    if depth == 16 and values.dtype.itemsize == 4:
        values = values.astype(np.uint16)
    if values.ndim == 2:
        planes = values[None]
    else:
        planes = np.moveaxis(values, 2, 0)  # (P, H, W)
    colours: dict[str, Colour] = {"RGB": "rgb", "RGBA": "rgb", "LA": "planes"}
    colour = colours.get(mode, "gray")
    return ImageFile(
        np.ascontiguousarray(planes),
        kind,
        colour,
        path,
        description,
        alpha=mode in ("LA", "RGBA"),
    )


def _open_pillow(path: Path, kind: str) -> Any:
    """Open a file by Pillow's class for its format.

    `PIL.Image.open` would try formats that run programs, and apply its own limit on pixels instead of `check_size`.
    """
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    kinds: dict[str, Any] = {
        "png": PngImageFile,
        "jpeg": JpegImageFile,
        "bmp": BmpImageFile,
    }
    return kinds[kind](path)


def _png_depth(path: Path) -> int:
    """Return the bits per sample from the IHDR chunk, which Pillow does not report."""
    with open(path, "rb", buffering=0) as stream:
        head = stream.read(26)
    if len(head) < 26 or head[12:16] != b"IHDR":
        raise DataError(f"{path}: damaged, a PNG must begin with its header chunk")
    return head[24]


def _refuse_mode(path: Path, image: Any, depth: int, *, palette: bool) -> None:
    """Refuse images whose numbers Pillow would change, or are not measurements; a palette unless it is allowed."""
    modes = {"I;16", "I;16B", "I"}
    if depth != 16:
        modes |= {"1", "L", "LA", "RGB", "RGBA"}
    if palette:
        modes.add("P")
    is_animation = image.format == "PNG" and getattr(image, "n_frames", 1) > 1
    if image.mode not in modes or is_animation:
        if is_animation:
            found = "an animation"
        else:
            found = f"{depth} bits in Pillow's mode {image.mode}"
        raise DataError(
            f"{path}: {found} cannot be read as stored; store it as grey, RGB or TIFF (of a palette the numbers are "
            "indices: Image.open(path).convert('RGB'), and 16 bits in several planes would become 8)"
        )


def _checked(found: ImageFile, *, bits: int = 32) -> ImageFile:
    """Refuse images without pixels, other types, and integers of more than `bits`; bring bytes into native order."""
    planes = found.planes
    path = found.path
    kind = planes.dtype.kind
    stored_bits = planes.dtype.itemsize * 8
    if kind not in "buif" or (kind in "iu" and stored_bits > bits) or stored_bits > 64:
        raise DataError(
            f"{path}: values of type {planes.dtype} are not supported; store them as float32 or integers of at most "
            f"{bits} bits"
        )
    if planes.ndim != 3 or 0 in planes.shape:
        raise DataError(f"{path}: holds no pixels, its shape is {planes.shape}")
    return replace(
        found, planes=planes.astype(planes.dtype.newbyteorder("="), copy=False)
    )


def require_unscaled(image: ImageFile, modality: str) -> None:
    """Raise DataError if a file states a scale or offset from its stored numbers to its values."""
    for factor, offset in image.scales:
        if (factor, offset) != (1.0, 0.0):
            raise DataError(
                f"{image.path}: states that its values are its numbers times {factor:g} plus {offset:g}, which "
                f"modality {modality!r} does not apply; store the values themselves (gdal_translate -unscale -ot "
                "Float32)"
            )


def require_no_alpha(image: ImageFile, modality: str) -> None:
    """Raise DataError if a file says that its last plane is alpha; for sensors that count planes."""
    if image.alpha:
        raise DataError(
            f"{image.path}: modality {modality!r} needs measurements, but the last of {len(image.planes)} planes is "
            "alpha (opacity); save the file without alpha, or if that plane is a measurement, save the planes as npy "
            "or as TIFF without alpha (tifffile: photometric='minisblack')"
        )


def require_one_plane(image: ImageFile, modality: str) -> None:
    """Raise DataError if a file holds several planes; it says which modality reads them."""
    count = len(image.planes)
    if count > 1:
        advice = (
            "--modality rgb for a colour picture, or " if image.colour == "rgb" else ""
        )
        raise DataError(
            f"{image.path}: modality {modality!r} needs one plane, got {count} of {image.planes.dtype}; give the "
            f"sensor's own file or one plane of it, or train with {advice}--modality raster with --channels 0"
        )


def _stated(image: ImageFile, key: str) -> Any:
    """Return a value of the json object in a file's description, such as `{"unit": "cK"}`; None if it has none."""
    try:
        values = parse_json(image.description)
    except ValueError:
        return None
    if isinstance(values, dict):
        return values.get(key)
    return None


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of stored numbers: the physical value is `stored / per + offset`.

    Attributes:
        name: as files state it ("cK", "mm").
        per: how many stored numbers make one physical unit.
        offset: in the physical unit.
    """

    name: str
    per: float = 1.0
    offset: float = 0.0

    def physical(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Return stored numbers in the physical unit; float64 keeps all digits of 16 bits."""
        return np.asarray(stored.astype(np.float64) / self.per + self.offset)

    def describe(self, quantity: str) -> str:
        """Return the description that states this unit, for `write_image(description=)`; see `stated_unit`."""
        return json.dumps({"quantity": quantity, "unit": self.name})


def stated_unit(
    image: ImageFile,
    known: Mapping[str, Unit],
    *,
    option: Unit | None = None,
    no_unit: Collection[str] = (),
) -> Unit | None:
    """Return the unit that a file's description states as json, `{"unit": "cK"}`, or the user by an option.

    Args:
        known: name -> unit.
        option: the unit that the user states.
        no_unit: names by which a file says that its numbers have none.

    Returns:
        None if neither states one.

    Raises:
        DataError: the file states an unknown unit, or another one than the user.
    """
    name = _stated(image, "unit")
    if name is None or name in no_unit:
        return option
    unit = known.get(name) if isinstance(name, str) else None
    if unit is None:
        raise DataError(
            f"{image.path}: its description states unit {name!r}; known: {', '.join([*known, *no_unit])}"
        )
    if option is not None and unit != option:
        raise DataError(
            f"{image.path}: says its unit is {unit.name}, but the option unit says {option.name}; leave the option out "
            "(--modality-option, card.toml), or correct the file"
        )
    return unit


def require_measured(
    image: SensorImage,
    values: npt.NDArray[np.floating],
    advice: str,
    *,
    measured: BoolArray | None = None,
) -> SensorImage:
    """Return an image of one channel; DataError if most numbers lie outside of its range, as in another unit.

    "Most" means more than nine of ten different numbers: a fill value counts once, however often it occurs. An image
    without a measurement is returned unchanged.

    Args:
        image: (1, H, W), whose channel has a valid range.
        values: numbers of the image before any became invalid.
        advice: what to try, without a full stop.
        measured: (1, H, W) False where the file or the user calls a number missing.
    """
    channel = image.channels[0]
    taken = np.isfinite(values)
    if measured is not None:
        taken = taken & measured
    inside = values[taken & image.valid]
    outside = values[taken & ~image.valid]
    if channel.valid_range is None or inside.size >= outside.size:
        return image  # most images; finding the different numbers takes time
    if inside.size and 9 * np.unique(inside).size >= np.unique(outside).size:
        return image
    low, high = channel.valid_range
    many = (
        "most of its numbers lie outside of" if inside.size else "no pixel lies within"
    )
    raise DataError(
        f"{image.origin}: {many} {low:g} to {high:g} {channel.unit}, got {values[taken].min():.6g} to "
        f"{values[taken].max():.6g} {channel.unit}; is its unit another one? {advice}"
    )


def stated_bits(image: ImageFile) -> int | None:
    """Return the bits of its counts that a file's description states as json, `{"bits": 12}`; None if it does not.

    Raises:
        DataError: the file's type cannot hold that many bits.
    """
    bits = _stated(image, "bits")
    if bits is None:
        return None
    most = image.planes.dtype.itemsize * 8
    if type(bits) is not int or not 1 <= bits <= most:
        raise DataError(
            f"{image.path}: its description states {bits!r} bits; 1 to {most} are possible"
        )
    return bits


def describe_bits(bits: int) -> str:
    """Return the description that `stated_bits` reads, for `write_image(description=)`."""
    return json.dumps({"bits": bits})


def largest_count(image: ImageFile) -> float:
    """Return the largest number that a file's pixels can have: of its stated bits, otherwise of its type.

    It is infinite for floats.

    Raises:
        DataError: as `stated_bits`.
    """
    bits = stated_bits(image)
    if bits is not None:
        return float(2**bits - 1)
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return float("inf")
    if dtype.kind == "b":
        return 1.0
    return float(np.iinfo(dtype).max)


def full_scale(largest: float) -> float:
    """Return the smallest count at which a pixel is saturated, given the `largest_count`.

    In 16 bits that is 65520: cameras also write 12-bit counts in the upper 12 bits, which never reach 65535.
    """
    if largest == 65535:
        return 65520.0
    return largest

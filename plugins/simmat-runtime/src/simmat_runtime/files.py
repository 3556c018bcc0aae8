"""Read an image file as an array of the numbers stored in it: npy, and PNG, JPEG and TIFF with Pillow and tifffile."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from simmat_runtime.manifest import Channel, open_regular

Array = npt.NDArray[Any]

MAX_VALUES = 2**30
"""Values of an image, 4 GiB as float32."""
_NPY, _PNG, _JPEG = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NODATA, _METADATA = 42113, 42112  # tags of GDAL
_REDUCED = 1  # bit of NewSubfileType: an overview
_HEADER = 8  # bytes at the start of a TIFF that hold no pixels
_MAX_PAGES = 4096


def read_file(path: Path | str, channels: Sequence[Channel]) -> Array:
    """Return the numbers of a file, (C, H, W), or (H, W) for one plane; bits and planes as stored, NaN for nodata.

    An npy array is in the units of the channels. Whole numbers in other files are counts, so they are read only for
    channels in counts.

    Raises:
        ValueError: it is missing, damaged or of another format, its numbers are not in the units of the channels, or
            the library for its format is not installed.
    """
    file = Path(path)
    try:
        with open_regular(file) as stream:
            head = stream.read(26)
            stream.seek(0)
            if head.startswith(_NPY):
                return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
            values, nodata = (
                _read_tiff(stream)
                if head.startswith(_TIFF)
                else (_read_pillow(stream, head), None)
            )
    except FileNotFoundError:
        raise ValueError(
            f"{file} does not exist; give an image of the model's sensor"
        ) from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{file} is read by {error.name}, which is missing; pip install 'simmat-runtime[images]', or give an .npy"
        ) from error
    except MemoryError as error:
        raise ValueError(f"{file} does not fit into memory") from error
    except Exception as error:  # Pillow and tifffile raise all kinds for a damaged file
        raise ValueError(f"{file} cannot be read ({error})") from error
    foreign = [f"{one.name} in {one.unit}" for one in channels if one.unit != "count"]
    if foreign and values.dtype.kind != "f":
        raise ValueError(
            f"{file} holds whole numbers without a unit, but the model takes {', '.join(foreign)}; read it with SimMAT "
            "and save the result as .npy"
        )
    return (
        values
        if nodata is None
        else np.where(values == nodata, np.float32(np.nan), values.astype(np.float32))
    )


def _read_pillow(stream: BinaryIO, head: bytes) -> Array:
    """Read a PNG or JPEG where Pillow gives the stored numbers."""
    if not head.startswith((_PNG, _JPEG)):
        raise ValueError("it is not an npy, PNG, JPEG or TIFF file")
    from PIL import Image

    depth = head[24] if head.startswith(_PNG) and len(head) > 24 else 8
    with Image.open(stream, formats=["PNG", "JPEG"]) as image:
        mode, bands = image.mode, len(image.getbands())
        _check_size((bands, image.height, image.width))
        if depth == 16 and bands > 1:
            raise ValueError(
                "a 16-bit PNG of several planes, which Pillow cuts to 8 bits; store it as TIFF"
            )
        if depth in (2, 4) or mode not in (
            "1",
            "L",
            "LA",
            "RGB",
            "RGBA",
            "I;16",
            "I;16B",
            "I",
        ):
            raise ValueError(
                f"{depth} bits of Pillow's mode {mode} are not plain intensities; store it as TIFF"
            )
        values = np.asarray(image)
        if mode == "I" and depth == 16:  # widened by an older Pillow
            values = values.astype(np.uint16)
    return values if values.ndim == 2 else np.moveaxis(values, 2, 0)  # (C, H, W)


def _read_tiff(stream: BinaryIO) -> tuple[Array, float | None]:
    """Read a page of one or more samples, or pages of one sample that agree; also return GDAL's nodata value."""
    import tifffile

    logging.getLogger("tifffile").disabled = True
    # Kinds for which tifffile would open other files, too, are read as plain TIFF.
    with tifffile.TiffFile(
        stream, is_ome=False, is_ndtiff=False, is_mmstack=False, is_scanimage=False
    ) as tiff:
        if len(tiff.pages) > _MAX_PAGES:
            raise ValueError(
                f"it lists {len(tiff.pages)} pages, at most {_MAX_PAGES} are read"
            )
        found = [tiff.pages[number].aspage() for number in range(len(tiff.pages))]
        pages = [page for page in found if not page.subfiletype & _REDUCED]
        kinds = {
            (
                page.shape,
                page.axes,
                str(page.dtype),
                int(page.photometric),
                page.subfiletype,
            )
            for page in pages
        }
        if len(kinds) != 1 or (len(pages) > 1 and pages[0].axes != "YX"):
            raise ValueError("it needs one page, or pages of one plane that agree")
        first = pages[0]
        if (
            first.axes not in ("YX", "YXS", "SYX")
            or first.photometric not in (1, 2)
            or first.subfiletype
        ):
            raise ValueError(
                f"axes {first.axes} of photometric {first.photometric!r} are not planes of an image"
            )
        metadata = first.tags.valueof(_METADATA, "")
        if 'role="scale"' in metadata or 'role="offset"' in metadata:
            raise ValueError(
                "it states a scale, which is not applied; save its values in the model's units as .npy"
            )
        _check_size((len(pages), *first.shape))
        for page in pages:
            _check_whole(page, tiff.filehandle.size)
            if page.compression == 1:
                # a part of the compression, as libtiff and Pillow have it
                page.predictor = 1
        # (pages, H, W), (1, H, W, S) or (1, S, H, W)
        values = np.stack([page.asarray() for page in pages])
        nodata = first.tags.valueof(_NODATA)
    if first.axes != "YX":
        values = np.moveaxis(values[0], 2, 0) if first.axes == "YXS" else values[0]
    return values, None if nodata is None else float(str(nodata).strip("\0 "))


def _check_whole(page: Any, size: int) -> None:
    """Refuse a file that ends before its pixels do, which would be zeros."""
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not parts or any(
        offset < _HEADER or not 0 < count <= size - offset for offset, count in parts
    ):
        raise ValueError("damaged or cut short, pixels are missing")


def _check_size(shape: tuple[int, ...]) -> None:
    if not 0 < math.prod(shape) <= MAX_VALUES:
        raise ValueError(
            f"it claims {' x '.join(map(str, shape))} values, at most {MAX_VALUES} are read"
        )

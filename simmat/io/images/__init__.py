"""Planes as they lie in an image file: PNG, JPEG, TIFF and npy, in the file's own numbers."""

from simmat.io.images.read import read_image
from simmat.io.images.units import Unit, agreed_unit, require_measured, stated_unit
from simmat.io.images.values import (
    ImageFile,
    describe_bits,
    full_scale,
    largest_count,
    require_no_alpha,
    require_one_plane,
    require_unscaled,
    stated_bits,
)
from simmat.io.images.write import write_image
from simmat.io.nodata import StatedNodata, stated_valid

__all__ = [
    "ImageFile",
    "StatedNodata",
    "Unit",
    "agreed_unit",
    "describe_bits",
    "full_scale",
    "largest_count",
    "read_image",
    "require_measured",
    "require_no_alpha",
    "require_one_plane",
    "require_unscaled",
    "stated_bits",
    "stated_unit",
    "stated_valid",
    "write_image",
]

"""Planes as they lie in an image file: PNG, JPEG, TIFF and npy, in the file's own numbers."""

from simmat.imageio.read import read_image
from simmat.imageio.saturation import describe_bits, full_scale, largest_count, stated_bits
from simmat.imageio.units import Unit, agreed_unit, require_measured, stated_unit
from simmat.imageio.values import ImageFile, require_no_alpha, require_one_plane, require_unscaled
from simmat.imageio.write import write_image
from simmat.stated_nodata import StatedNodata, stated_valid

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

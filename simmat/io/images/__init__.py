"""Planes of image files (PNG, JPEG, TIFF, npy) in the file's own numbers, and what those mean."""

from simmat.io.images.limits import check_size, check_window
from simmat.io.images.planes import image_size, read_image, window_size, write_image
from simmat.io.images.stacks import Stack, frame_of
from simmat.io.images.values import (
    ImageFile,
    Unit,
    describe_bits,
    full_scale,
    largest_count,
    not_nodata,
    require_measured,
    require_no_alpha,
    require_one_plane,
    require_unscaled,
    stated_bits,
    stated_unit,
)

__all__ = [
    "ImageFile",
    "Stack",
    "Unit",
    "check_size",
    "check_window",
    "describe_bits",
    "frame_of",
    "full_scale",
    "image_size",
    "largest_count",
    "not_nodata",
    "read_image",
    "require_measured",
    "require_no_alpha",
    "require_one_plane",
    "require_unscaled",
    "stated_bits",
    "stated_unit",
    "window_size",
    "write_image",
]

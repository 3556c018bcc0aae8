"""`raster`: any number of planes as they lie in the file, for sensors that no plugin names."""

from __future__ import annotations

from simmat.builtin.sensors.gray import narrowest
from simmat.imageio import read_image, write_image
from simmat.modality import Files, Missing, ModalityAdapter, Nodata, Source
from simmat.types import Channel, SensorImage


class Raster(ModalityAdapter):
    """Planes `band0`, `band1`, … of counts, in the order of the file; `--channels` picks them by index or name."""

    name = "raster"
    description = "any planes as they lie in the file (PNG, JPEG, TIFF, npy (P, H, W)); pick with --channels"
    sources = (Source("raster", (".tif", ".tiff", ".npy", ".png", ".jpg", ".jpeg")),)

    def load(self, files: Files, *, nodata: Nodata = None, missing: Missing = None) -> SensorImage:
        """Read (C, H, W) counts; an npy array of three axes is (planes, height, width) by rule."""
        image = read_image(files["raster"], nodata)
        return SensorImage.from_planes(
            image.planes, band_channels(len(image.planes)), valid=image.valid, origin=str(image.path)
        )

    def save(self, image: SensorImage, files: Files) -> None:
        """Write whole counts of 0 to 65535 as integers, all else as float32; invalid pixels become NaN."""
        write_image(files["raster"], narrowest(image))


def band_channels(count: int) -> tuple[Channel, ...]:
    """Return channels `band0` to `band{count-1}`, in counts."""
    return tuple(Channel(f"band{index}", "counts", "count") for index in range(count))

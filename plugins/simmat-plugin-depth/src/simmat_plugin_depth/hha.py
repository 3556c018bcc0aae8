"""`hha`: horizontal disparity, height above ground, angle with gravity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from simmat import (
    Channel,
    ModalityAdapter,
    ModalityOptions,
    PathsBySource,
    SensorImage,
    Source,
)
from simmat.errors import DataError
from simmat.io.images import write_image
from simmat.types import ImageFile
from simmat_plugin_depth.depth import MAX_M, metres_of, read_planes
from simmat_plugin_depth.geometry import LEVEL_UP, Intrinsics, hha
from simmat_plugin_depth.units import UNIT_WORDS, DepthUnit, unit_of

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene

PHYSICAL = (
    Channel("disparity", "horizontal_disparity", "1/m", valid_range=(0.0, 1000.0)),
    Channel("height", "height_above_ground", "m", valid_range=(-MAX_M, MAX_M)),
    Channel("angle", "angle_with_gravity", "deg", valid_range=(0.0, 180.0)),
)
ENCODED = tuple(
    replace(channel, unit="count", valid_range=(0.0, 255.0)) for channel in PHYSICAL
)
ENDINGS = (".tif", ".tiff", ".png", ".npy", ".exr")


class HhaOptions(ModalityOptions):
    """How HHA is computed from depth."""

    gravity: Literal["estimated", "level"] = Field(
        "estimated",
        description="The up direction is estimated from the surfaces, or the camera is level.",
    )
    unit: DepthUnit | None = Field(None, description=UNIT_WORDS)


class Hha(ModalityAdapter):
    """HHA, computed from a depth plane and the intrinsics of the card, or read from a file that contains it.

    The channels of a loaded image have physical units, or counts if the file is an 8-bit encoding.
    """

    name = "hha"
    description = "disparity, height, angle with gravity: from depth and intrinsics, or precomputed"
    sources = (Source("hha", ENDINGS),)
    channels = PHYSICAL

    Options = HhaOptions
    options: HhaOptions

    def __init__(
        self, options: HhaOptions | None = None, *, camera: Intrinsics | None = None
    ) -> None:
        """Make the sensor; `camera` are the intrinsics of the data card, if it has them."""
        super().__init__(options)
        self.camera = camera

    def configured(self, card: Mapping[str, Any]) -> Hha:
        """Return the sensor with the intrinsics of the data card."""
        said = card.get("intrinsics")
        return Hha(
            self.options,
            camera=Intrinsics.from_card(said) if said is not None else None,
        )

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (3, H, W).

        One plane is depth, in the units of `depth`, and needs intrinsics. Three float planes are disparity in 1/m,
        height in m and angle in degrees, as `save` writes them. Three 8-bit planes are counts of an encoding, in the
        order of the file; pixels with 0 in all three are invalid.
        """
        image = read_planes(Path(files["hha"]), self.nodata("hha"))
        count, dtype = len(image.planes), image.planes.dtype
        if count == 1:
            return self._computed(
                metres_of(image, unit_of(image, self.options.unit), self.name),
                self._known_camera(image.path),
            )
        if count == 3 and dtype.kind == "f":
            return SensorImage.from_planes(
                image.planes, PHYSICAL, valid=image.valid, origin=str(image.path)
            )
        if count == 3 and dtype == np.uint8:
            return _encoded(image)
        raise DataError(
            f"{image.path}: modality {self.name!r} needs one plane of depth, three planes of 8 bits or three planes "
            f"of floats, got {count} of {dtype}"
        )

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return the (3, H, W) HHA of a simulated depth image."""
        from simmat_plugin_depth.depth import Depth

        height, width = scene.size_hw
        camera = Intrinsics(
            scene.focal_px, scene.focal_px, (width - 1) / 2, (height - 1) / 2
        )
        return self._computed(Depth().simulate(scene, rng), camera)

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write a TIFF or npy of three float32 planes, or counts as 8 bits; invalid pixels are NaN, or 0."""
        path = Path(files["hha"])
        if image.channels[0].unit == "count":
            write_image(
                path, np.where(image.valid, np.rint(image.data), 0).astype(np.uint8)
            )
        else:
            write_image(path, np.where(image.valid, image.data, np.float32(np.nan)))

    def _known_camera(self, path: Path) -> Intrinsics:
        if self.camera is None:
            raise DataError(
                f"{path}: {self.name!r} is computed from depth with the camera's intrinsics, which the data card "
                "lacks; write into card.toml, in pixels:  [intrinsics] fx = …, fy = …, cx = …, cy = … (one per line)"
            )
        return self.camera

    def _computed(self, depth: SensorImage, camera: Intrinsics) -> SensorImage:
        up = np.asarray(LEVEL_UP) if self.options.gravity == "level" else None
        planes, valid = hha(
            depth.data[0].astype(np.float64), depth.valid[0], camera, up
        )
        return SensorImage.from_planes(
            planes, PHYSICAL, valid=valid, origin=depth.origin
        )


def _encoded(image: ImageFile) -> SensorImage:
    measured = np.broadcast_to(image.planes.any(axis=0), image.planes.shape)
    return SensorImage.from_planes(
        image.planes, ENCODED, valid=measured & image.valid, origin=str(image.path)
    )


HHA_MODALITIES: tuple[ModalityAdapter, ...] = (Hha(),)

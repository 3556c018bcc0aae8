"""A forward-looking sonar for SimMAT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from simmat import (
    Channel,
    ModalityAdapter,
    PathsBySource,
    SensorImage,
    Source,
    hookimpl,
)
from simmat.io.images import read_image, require_one_plane, write_image

if TYPE_CHECKING:
    from simmat_plugin_scenes import Scene


class Sonar(ModalityAdapter):
    """The strength of the echo, 8-bit counts; the network gets decibel."""

    name = "sonar"
    description = "forward-looking sonar, strength of the echo (PNG or grey JPEG)"
    sources = (Source("sonar", (".png", ".jpg", ".jpeg")),)
    channels = (Channel("echo", "echo_strength", "count"),)

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (1, H, W) counts."""
        image = read_image(files["sonar"], self.nodata("sonar"))
        require_one_plane(image, self.name)
        return SensorImage.from_planes(
            image.planes, self.channels, valid=image.valid, origin=str(image.path)
        )

    def transform(self, image: SensorImage) -> SensorImage:
        """Return (1, H, W) decibel of the amplitude; a count of 0 is a weak echo, taken as half a count."""
        decibel = 20 * np.log10(np.maximum(image.data, np.float32(0.5)))
        return replace(
            image, data=decibel, channels=(Channel("echo", "echo_strength", "dB"),)
        )

    def is_log_scale(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        """Say that `transform` takes the logarithm of the echo."""
        return (True,)

    def simulate(self, scene: Scene, rng: np.random.Generator) -> SensorImage:
        """Return (1, H, W) counts: Lambert's law (amplitude ~ cos), weaker with range, with Rayleigh speckle."""
        # of the amplitude; the intensity goes with its square
        facing = np.abs(scene.surface.normal[2])
        echo = (
            80
            * facing
            * np.exp(-scene.surface.depth_m / 30)
            * rng.rayleigh(size=facing.shape)
        )
        return SensorImage.from_planes(
            np.rint(echo).clip(0, 255), self.channels, origin="simulated"
        )

    def save(self, image: SensorImage, files: PathsBySource) -> None:
        """Write an 8-bit PNG."""
        write_image(files["sonar"], image.data.astype(np.uint8))


@hookimpl
def simmat_modalities() -> Iterable[ModalityAdapter]:
    """Return the sensors of this package."""
    return [Sonar()]

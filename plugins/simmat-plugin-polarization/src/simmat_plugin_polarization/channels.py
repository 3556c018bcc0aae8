"""The channels of a polarization image, and their values under flips, rotations and the transform for the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from simmat import Channel, ModalityAdapter, ModalityOptions, SensorImage
from simmat.sensors.adapter import Axis
from simmat.sensors.options import parse_options
from simmat.types import BoolArray, FloatArray
from simmat_plugin_polarization.stokes import (
    Array,
    angle_of,
    degree_of,
    within_half_turn,
)

S0 = Channel("s0", "intensity", "count")
AOLP = Channel("aolp", "angle_of_linear_polarization", "rad")
DOLP = Channel("dolp", "degree_of_linear_polarization", "1", valid_range=(0.0, 1.0))
COS = Channel("dolp_cos_2aolp", "normalized_stokes_s1", "1", valid_range=(-1.0, 1.0))
SIN = Channel("dolp_sin_2aolp", "normalized_stokes_s2", "1", valid_range=(-1.0, 1.0))


class PolarizationOptions(ModalityOptions):
    """Options of the files of a polarization camera."""

    files: Literal["angles", "mosaic", "aolp-dolp"] = Field(
        "angles",
        description="Four images behind polarizers at 0, 45, 90, 135 degrees; one raw mosaic; or precomputed "
        "angle and degree.",
    )
    angle_unit: Literal["rad", "deg"] = Field(
        "rad", description="Unit of floating-point angles, for files=aolp-dolp."
    )

    @model_validator(mode="after")
    def _belong_together(self) -> PolarizationOptions:
        if self.angle_unit != "rad" and self.files != "aolp-dolp":
            raise ValueError("angle_unit needs files=aolp-dolp")
        return self


class PolarizationAdapter(ModalityAdapter):
    """A sensor whose channels include `aolp` and `dolp`; the option `files` decides which subclass reads it.

    The network gets the angle as sin 2θ and cos 2θ, so that 0 and π are equal, weighted by the degree of polarization,
    because the angle of unpolarized light is noise. These are the normalized Stokes parameters S1/S0 and S2/S0.
    """

    name = "polarization"

    readers: ClassVar[Mapping[str, type[PolarizationAdapter]]] = {}
    """The option `files` -> what reads them."""

    Options = PolarizationOptions
    options: PolarizationOptions

    def with_options(self, options: Mapping[str, Mapping[str, Any]]) -> ModalityAdapter:
        """Return the adapter for the files that the options describe."""
        said = options.get(self.name)
        if not said:
            return self
        parsed = parse_options(
            PolarizationOptions, {**self.stated_options(), **said}, self.name
        )
        return self.readers[parsed.files](parsed)

    def transform(self, image: SensorImage) -> SensorImage:
        """Replace `aolp` by `dolp_cos_2aolp` and `dolp_sin_2aolp`, at the end."""
        data, valid = self.transform_arrays(image.data, image.valid, image.channels, np)
        rest = (channel for channel in image.channels if channel.name != AOLP.name)
        return replace(
            image, data=data.astype(np.float32), valid=valid, channels=(*rest, COS, SIN)
        )

    def transform_arrays(
        self, data: Any, valid: Any, channels: Sequence[Channel], library: Any
    ) -> tuple[Any, Any]:
        """Compute `transform`."""
        aolp, dolp = (_index(channels, channel) for channel in (AOLP, DOLP))
        rest = [index for index in range(len(channels)) if index != aolp]
        degree, double = data[..., dolp, :, :], 2 * data[..., aolp, :, :]
        known = valid[..., aolp, :, :] & valid[..., dolp, :, :]
        waves = [
            library.where(known, degree * wave(double), 0.0)
            for wave in (library.cos, library.sin)
        ]
        return (
            library.stack([*(data[..., index, :, :] for index in rest), *waves], -3),
            library.stack(
                [*(valid[..., index, :, :] for index in rest), known, known], -3
            ),
        )

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        """Mirror an image; for both axes an angle θ becomes -θ."""
        return _with_angle(super().flip(image, axis), -1, 0)

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        """Rotate an image counter-clockwise; an angle θ becomes θ + 90° times `quarter_turns`."""
        return _with_angle(super().rotate(image, quarter_turns), 1, quarter_turns)


def from_stokes(
    stokes: Array, measured: BoolArray, trusted: BoolArray, origin: str
) -> SensorImage:
    """Return the image (3, H, W) of `s0`, `aolp` and `dolp` for Stokes parameters.

    Args:
        stokes: (3, H, W) S0, S1, S2 in counts.
        measured: (H, W) bool, False where a file has no value.
        trusted: (H, W) bool, False where the light was too bright or too dark for its polarization.
        origin: origin of the image, for messages.
    """
    dolp = degree_of(stokes)
    # a degree above 1: the four values are inconsistent
    possible = (dolp <= 1) & (stokes[0] > 0)
    known = measured & trusted & possible
    planes = np.stack([stokes[0], angle_of(stokes[1], stokes[2]), dolp])
    return SensorImage.from_planes(
        planes,
        (S0, AOLP, DOLP),
        valid=np.stack([measured, known, known]),
        origin=origin,
    )


def _with_angle(image: SensorImage, sign: int, quarter_turns: int) -> SensorImage:
    """Return the image with θ replaced by sign θ + quarter_turns π/2, in 0 to π."""
    place = _index(image.channels, AOLP)
    data: FloatArray = image.data.copy()
    angle = sign * data[place] + np.float32(quarter_turns % 2 * np.pi / 2)
    data[place] = np.where(image.valid[place], within_half_turn(angle), data[place])
    return replace(image, data=data)


def _index(channels: Sequence[Channel], channel: Channel) -> int:
    return [own.name for own in channels].index(channel.name)

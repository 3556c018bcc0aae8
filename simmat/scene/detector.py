"""What a detector that counts electrons reads of the light on it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def detected(exposure: Array, *, full_well: float, read_noise: float, rng: np.random.Generator) -> Array:
    """Add shot and read noise, both normally distributed.

    Args:
        exposure: of any shape, not negative; 1 fills the wells.
        full_well: electrons at an exposure of 1.
        read_noise: its standard deviation in electrons.
        rng: where chance comes from.

    Returns:
        The reading in the unit and shape of `exposure`; noise may take it below 0, and nothing is clipped at 1.
    """
    electrons = exposure * full_well
    noisy = electrons + rng.normal(size=electrons.shape) * np.sqrt(electrons + read_noise**2)
    return np.asarray(noisy / full_well)

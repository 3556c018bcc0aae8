"""The noise of a detector that counts electrons."""

from __future__ import annotations

import numpy as np
import pytest

from simmat.scene.detector import detected


@pytest.mark.parametrize("exposure", [0.0, 0.01, 0.9])
def test_noise_is_that_of_counted_electrons_and_of_reading_them(exposure: float) -> None:
    """Variance in electrons: as many as there are, and the square of the read noise."""
    light = np.full((2, 200, 200), exposure)
    seen = detected(light, full_well=5000, read_noise=6, rng=np.random.default_rng(0))
    electrons = seen * 5000
    assert electrons.mean() == pytest.approx(5000 * exposure, abs=1)
    assert electrons.var() == pytest.approx(5000 * exposure + 36, rel=0.03)

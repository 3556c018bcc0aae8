"""The numbers in the seeds."""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 24, 31
_RNG = np.random.default_rng(0)
GRAY8 = _RNG.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
GRAY16 = _RNG.integers(0, 65_535, (HEIGHT, WIDTH), dtype=np.uint16)
RGB = _RNG.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FLOATS = _RNG.normal(size=(HEIGHT, WIDTH)).astype(np.float32)
POSITIVE = np.abs(FLOATS) + np.float32(0.01)
LABELS = (GRAY8 // 60).astype(np.uint8)
"""Values 0 to 4."""

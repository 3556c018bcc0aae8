"""A picture that is cut into windows, and settings that find something in it with an untrained head."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simmat.io.images import write_image
from simmat.predictor.objects import EverythingSettings

EVERY = EverythingSettings(peak=0.0, min_score=0.0, objectness=0.0)


def large_scene(path: Path, size_hw: tuple[int, int] = (150, 180)) -> Path:
    """Write a grey picture with twelve bright squares."""
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 50, (1, *size_hw)).astype(np.uint8)
    for y, x in rng.integers(5, 130, (12, 2)):
        planes[0, y : y + 12, x : x + 12] += 120
    write_image(path, planes)
    return path

"""Sensors that are joined must lie on one pixel grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from simmat_plugin_report.checks import check_dataset

from simmat import open_dataset
from simmat.io.images import write_image


def pairs(root: Path, down: int, right: int) -> list[str]:
    """Write pairs of a colour and a grey image, the grey one shifted, and return the warnings of shifts."""
    for index in range(5):
        rng = np.random.default_rng(index)
        ground = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 3)
        scene = 128 + 400 * ground
        colour = scene[30:126, 30:126].clip(0, 255).astype(np.uint8)
        moved = scene[30 - down : 126 - down, 30 - right : 126 - right]
        other = (255 - moved).clip(0, 255).astype(np.uint8)
        write_image(root / f"images/rgb/{index}.png", np.stack([colour] * 3))
        write_image(root / f"images/gray/{index}.png", other[None])
        mask = np.zeros((1, 96, 96), np.uint8)
        mask[:, 40:60, 40:60] = 1
        write_image(root / f"masks/{index}.png", mask)
    dataset = open_dataset(root, "rgb+gray", regions="classes")
    report = check_dataset(dataset, twice=True)
    return [one.text for one in report.findings if one.kind == "shifted-sensors"]


def test_images_of_one_grid_raise_no_alarm(tmp_path: Path) -> None:
    """What is bright for one sensor is dark for the other; their edges lie together."""
    assert pairs(tmp_path, 0, 0) == []


@pytest.mark.parametrize(("down", "right"), [(0, 20), (-12, 5)])
def test_shifted_sensors_are_told(tmp_path: Path, down: int, right: int) -> None:
    """A network that joins them learns from pixels of two different places."""
    (said,) = pairs(tmp_path, down, right)
    assert "gray seems to be shifted against rgb: median" in said
    assert f"{-right:+.0f} px to the right and {-down:+.0f} px down" in said

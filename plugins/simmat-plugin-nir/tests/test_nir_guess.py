"""What `simmat modalities guess` says of files with a red and a near-infrared band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from simmat_plugin_guess.guess import guess_folder
from simmat_plugin_nir.red_nir import RedNir

from simmat.sensors.builtin import MODALITIES


def test_a_picture_that_repeats_a_plane_has_two_bands(tmp_path: Path) -> None:
    """As a colour picture, it would be read as one."""
    planes = np.random.default_rng(0).integers(0, 256, (24, 32, 2)).astype(np.uint8)
    Image.fromarray(planes[:, :, [0, 1, 0]]).save(tmp_path / "a.png")
    (group,) = guess_folder(tmp_path, [*MODALITIES, RedNir()]).groups
    assert group.best is not None
    assert group.best.modality == "red-nir"
    assert any("near-infrared" in text for text in group.questions)


def test_a_colour_picture_is_not_taken_for_two_bands(tmp_path: Path) -> None:
    """Its third plane has information of its own."""
    planes = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(planes).save(tmp_path / "a.png")
    (group,) = guess_folder(tmp_path, [*MODALITIES, RedNir()]).groups
    assert group.best is not None
    assert group.best.modality == "rgb"

"""What `simmat modalities guess` says of radar files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from simmat_plugin_guess.guess import guess_folder
from simmat_plugin_sar.adapter import Sar

from simmat.sensors.builtin import MODALITIES


def test_a_plane_that_is_stored_three_times_needs_its_option(tmp_path: Path) -> None:
    """Many radar sets are published as colour JPEGs."""
    folder = tmp_path / "sar-ships"
    folder.mkdir()
    plane = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)
    Image.fromarray(np.stack([plane] * 3, axis=2)).save(folder / "a.png")
    (group,) = guess_folder(folder, [*MODALITIES, Sar()]).groups
    assert group.best is not None
    assert group.best.modality == "sar"
    assert group.best.recognition.options == {"gray_picture": True}
    assert any("amplitude" in text for text in group.questions)

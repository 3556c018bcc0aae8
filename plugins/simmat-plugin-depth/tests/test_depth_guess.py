"""What `simmat modalities guess` says of depth files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from simmat_plugin_depth.depth import Depth
from simmat_plugin_guess.guess import GroupGuess, guess_folder


def group_of(folder: Path) -> GroupGuess:
    (found,) = guess_folder(folder, [Depth()]).groups
    assert found.best is not None
    return found


def test_an_assumed_unit_is_called_that_and_asked_for(tmp_path: Path) -> None:
    """Floats are metres by convention, not by anything in the file."""
    folder = tmp_path / "depth"
    folder.mkdir()
    metres = np.random.default_rng(0).uniform(0.5, 2, (24, 32)).astype(np.float32)
    np.save(folder / "a.npy", metres)
    found = group_of(folder)
    assert found.best is not None
    assert found.best.unit_evidence.startswith("an assumption of modality 'depth'")
    assert any("distances in m?" in text for text in found.questions)


def test_zeros_are_no_distance_and_not_asked_for(tmp_path: Path) -> None:
    """The sensor leaves them out by itself, so the answer would change nothing."""
    metres = np.random.default_rng(0).uniform(0.5, 2, (24, 32)).astype(np.float32)
    metres[:8] = 0
    np.save(tmp_path / "a.npy", metres)
    assert not any("--nodata" in text for text in group_of(tmp_path).questions)


def test_a_unit_in_the_description_is_stated(tmp_path: Path) -> None:
    """It needs no question."""
    stored = np.full((24, 32), 80, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, description='{"unit": "cm"}')
    best = group_of(tmp_path).best
    assert best is not None
    assert best.recognition.certainty == "stated"
    assert "cm" in best.unit_evidence

"""What `simmat modalities guess` says of thermal files, and the option that repairs a wrong unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from simmat_plugin_guess.guess import Candidate, GroupGuess, guess_folder
from simmat_plugin_thermal.adapter import Thermal


def group_of(folder: Path) -> GroupGuess:
    (found,) = guess_folder(folder, [Thermal()]).groups
    return found


def best_of(folder: Path) -> Candidate:
    found = group_of(folder).best
    assert found is not None
    return found


def raw() -> np.ndarray:
    counts = np.random.default_rng(0).integers(13000, 16000, (24, 32))
    return counts.astype(np.uint16)


def test_flir_records_state_kelvin(
    tmp_path: Path, write_flir_jpeg: Callable[..., None]
) -> None:
    """The constants of the calibration are in the file."""
    for number in range(2):
        write_flir_jpeg(tmp_path / f"{number}.jpg", raw())
    found = best_of(tmp_path)
    assert found.recognition.certainty == "stated"
    assert [channel.unit for channel in found.channels] == ["K"]
    assert "FLIR" in found.recognition.evidence[0]


def test_ordinary_and_radiometric_jpegs_are_told_apart(
    tmp_path: Path, write_flir_jpeg: Callable[..., None]
) -> None:
    """Some cameras write a picture of each beside the other."""
    write_flir_jpeg(tmp_path / "a.jpg", raw())
    Image.fromarray(np.full((24, 32), 128, np.uint8)).save(tmp_path / "b.jpg")
    groups = guess_folder(tmp_path, [Thermal()]).groups
    units = {group.files.first.path.name: group.best for group in groups}
    assert {
        name: None if best is None else best.channels[0].unit
        for name, best in units.items()
    } == {"a.jpg": "K", "b.jpg": "count"}


def test_a_unit_in_the_description_is_stated(tmp_path: Path) -> None:
    """Our own files, and those of others who say it, need no question."""
    stored = np.full((24, 32), 29500, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, description='{"unit": "cK"}')
    found = best_of(tmp_path)
    assert found.recognition.certainty == "stated"
    assert "cK" in found.unit_evidence
    assert group_of(tmp_path).questions == ()


def test_a_unit_that_only_fits_is_asked_for_and_never_taken(tmp_path: Path) -> None:
    """30,000 counts are 27 °C in centikelvin, or just bright."""
    stored = np.random.default_rng(0).integers(29500, 30500, (24, 32))
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(np.uint16))
    found = group_of(tmp_path)
    assert found.best is not None
    assert [channel.unit for channel in found.best.channels] == ["count"]
    assert any("unit=cK" in text and "°C" in text for text in found.questions)


def test_counts_of_no_usual_temperature_suggest_no_unit(tmp_path: Path) -> None:
    """A question that cannot be right is noise."""
    stored = np.random.default_rng(0).integers(0, 255, (24, 32))
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(np.uint16))
    assert not any("unit=" in text for text in group_of(tmp_path).questions)


def test_the_frames_of_a_sequence_have_temperatures(
    tmp_path: Path, flir_block: Callable[..., bytes]
) -> None:
    """By the constants in the file; asking for a unit of the raw values would be wrong."""
    (tmp_path / "a.seq").write_bytes(flir_block(raw()) + flir_block(raw()))
    found = best_of(tmp_path)
    assert found.recognition.certainty == "stated"
    assert "kelvin" in found.unit_evidence
    assert not any("unit=" in text for text in found.recognition.questions)

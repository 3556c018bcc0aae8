"""What `simmat modalities guess` says of files of many bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from simmat_plugin_geo.geotiff import BandTags, write_geotiff
from simmat_plugin_guess.guess import GroupGuess, guess_folder
from simmat_plugin_multispectral.adapter import Landsat8, Multispectral, Sentinel2

from simmat.errors import DataError
from simmat.sensors.builtin import MODALITIES


def group_of(folder: Path, bands: Sequence[BandTags]) -> GroupGuess:
    shape = (len(bands), 24, 32)
    planes = np.random.default_rng(0).integers(100, 4000, shape).astype(np.uint16)
    write_geotiff(folder / "a.tif", planes, bands=list(bands))
    sensors = [*MODALITIES, Multispectral(), Sentinel2(), Landsat8()]
    (found,) = guess_folder(folder, sensors).groups
    assert found.best is not None
    return found


def test_described_bands_are_evidence_and_their_scale_is_asked_for(
    tmp_path: Path,
) -> None:
    """Names say which band it is, not what its numbers are."""
    found = group_of(tmp_path, [BandTags("red 665 nm"), BandTags("nir 842 nm")])
    assert found.best is not None
    assert found.best.modality == "multispectral"
    evidence = " ".join(found.best.recognition.evidence)
    assert "red 665 nm" in evidence
    assert "0.842" in evidence
    assert [one.unit for one in found.best.channels] == ["count", "count"]
    assert any("scale=" in text for text in found.questions)


def test_units_of_bands_are_stated(tmp_path: Path) -> None:
    """A file that says it is reflectance needs no question."""
    bands = [BandTags(name, "reflectance", 1e-4) for name in ("red", "nir")]
    found = group_of(tmp_path, bands)
    assert found.best is not None
    assert found.best.recognition.certainty == "stated"
    assert "reflectance" in found.best.unit_evidence


def test_the_bands_of_sentinel_2_are_recognized(tmp_path: Path) -> None:
    """Its offset depends on the date of processing, which the file does not say."""
    found = group_of(tmp_path, [BandTags(name) for name in ("B2", "B8A", "B11", "B12")])
    assert found.best is not None
    assert found.best.modality == "sentinel2"
    assert any("boa_offset" in text for text in found.questions)


def test_band_names_that_other_satellites_share_are_no_evidence(
    tmp_path: Path,
) -> None:
    """B2 to B4 of Landsat have another scale."""
    found = group_of(tmp_path, [BandTags(name) for name in ("B2", "B3", "B4")])
    assert found.best is not None
    assert found.best.modality == "multispectral"
    assert {one.unit for one in found.best.channels} == {"count"}


def test_a_stack_without_descriptions_gets_a_draft(tmp_path: Path) -> None:
    """Nothing in it says what the bands are."""
    found = group_of(tmp_path, [BandTags()] * 4)
    assert found.best is not None
    assert found.best.recognition.certainty == "possible"
    assert found.draft.count("[[channel]]") == 4


@pytest.mark.parametrize("name", ["a.jp2", "a.SAFE", "a.zarr"])
def test_files_that_guess_cannot_look_at_name_the_sensor_that_reads_them(
    tmp_path: Path, name: str
) -> None:
    """A folder full of images must not be called empty."""
    if name == "a.jp2":
        (tmp_path / name).write_bytes(b"")
    else:
        (tmp_path / name).mkdir()
    sensors = [*MODALITIES, Multispectral(), Sentinel2()]
    modality = "sentinel2" if name == "a.SAFE" else "multispectral"
    with pytest.raises(DataError, match=rf"{name}.*--modality {modality}"):
        guess_folder(tmp_path, sensors)

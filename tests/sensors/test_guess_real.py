"""`simmat modalities guess` on real folders: no unit that is wrong; skipped where the data is not there."""

from __future__ import annotations

import pytest
from installed import SHARED_DATA, need_plugins, needs_shared_data

from simmat.plugins.registry import load_plugins
from simmat.sensors.guess import guess_folder

UNITS = {
    "depth-bins": {"count", "m"},
    "radiometric-jpeg": {"count", "K"},
}
"""Units that are right, by the README of each folder; all others hold counts."""
MODALITIES = {
    "depth-bins": {"depth"},
    "fluorescence-nuclei": {"gray"},
    "multispectral-water": {"multispectral"},
    "nir-crops": {"red-nir"},
    "radiometric-jpeg": {"thermal"},
    "rgb-regions": {"rgb"},
    "rgb-thermal-pairs": {"rgb", "thermal"},
    "s2-fields": {"multispectral"},
    "sar-ships": {"sar"},
    "sonar-classes": {"gray", "sonar"},
    "sonar-objects": {"gray", "sonar"},
    "thermal-udder": {"thermal"},
    "sequences/cells-sim": {"gray"},
    "sequences/ct-spleen": {"gray"},
    "sequences/mri-tumour": {"gray"},
}
"""The sensors of each folder."""


@needs_shared_data
@pytest.mark.parametrize("name", MODALITIES)
def test_no_unit_is_wrong(name: str) -> None:
    """A temperature that is none spoils every result after it."""
    need_plugins("depth", "multispectral", "nir", "sar", "sequences", "thermal", "geo")
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found = guess_folder(folder, load_plugins().all("modality"))
    assert {group.best and group.best.modality for group in found.groups} <= (
        MODALITIES[name]
    )
    for group in found.groups:
        assert group.best is not None
        units = {channel.unit for channel in group.best.channels}
        assert units <= UNITS.get(name, {"count"})
        assert group.best.unit_evidence
        if group.best.recognition.unit == "":
            assert group.questions  # a unit that is not stated is asked for

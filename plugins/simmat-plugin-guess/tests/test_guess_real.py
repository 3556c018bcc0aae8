"""`simmat modalities guess` on real folders: no unit that is wrong; skipped where the data is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from installed import SHARED_DATA, need_plugins, needs_shared_data
from simmat_plugin_guess.guess import guess_folder

from simmat.cli import run
from simmat.plugins.loader import load_plugins
from simmat.sensors.adapter import with_data_card
from simmat.sensors.options import parse_nodata
from simmat.sensors.sensor_toml import read_sensor

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
def test_no_unit_is_wrong_and_all_advice_works(name: str, tmp_path: Path) -> None:
    """A temperature that is none spoils every result after it, and advice that is refused helps nobody."""
    need_plugins("depth", "multispectral", "nir", "sar", "sequences", "thermal", "geo")
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    registry = load_plugins()
    found = guess_folder(folder, registry.all("modality"))
    composition = "+".join(one.modality for one in found.composition)
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
        said = " ".join([group.best.arguments, *group.questions])
        for sensor, option in re.findall(r"--modality-option (\w+)(\.[\w.=]+\w)", said):
            for modality in (sensor, composition or sensor):
                shown = ["modalities", "show", modality]
                assert run([*shown, "--modality-option", sensor + option]) == 0
        for nodata in re.findall(r"--nodata (\S+)", said):
            for modality in (group.best.modality, composition or group.best.modality):
                card = {"nodata": parse_nodata(nodata)}
                with_data_card(registry.modality(modality), card)
        if group.draft:
            (tmp_path / "sensor.toml").write_text(group.draft)
            drafted = read_sensor(tmp_path / "sensor.toml")
            drafted.load({drafted.sources[0].name: group.files.first.path})

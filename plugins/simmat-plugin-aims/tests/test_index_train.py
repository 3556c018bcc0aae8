"""From a published folder to a score, for the paper's modalities: nothing between the commands has to be mended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layout_trees import tree

from simmat.cli import run
from simmat.plugins.loader import load_plugins

CASES = [
    ("ivrg-nir", "nir", 1),
    ("ivrg-nir", "rgb+nir", 4),
    ("rgb-thermal-glass", "thermal", 1),
    ("rgb-thermal-glass", "rgb+thermal-minmax", 4),
    ("nyudv2", "depth-minmax", 1),
    ("nyudv2", "hha", 3),
    ("nyudv2", "rgb+depth", 4),
    ("nyudv2", "rgb+hha", 6),
    ("rgbp-glass", "polarization-aims", 6),
    ("rgbp-glass", "rgb+polarization-aims", 9),
    ("rgbp-glass", "polarization", 3),
    ("zju-rgbp", "polarization-aims-angles", 9),
    ("zju-rgbp", "polarization", 4),
]
"""layout, modality, channels that reach the network (those of the paper where it has the modality)."""


def needs(modality: str) -> None:
    """Skip where the plugin of a sensor is not installed; the core depends on none."""
    if missing := set(modality.split("+")) - set(load_plugins().names("modality")):
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")


@pytest.mark.parametrize(("layout", "modality", "channels"), CASES)
def test_the_index_passes_the_check(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    layout: str,
    modality: str,
    channels: int,
) -> None:
    """Every file is read as the sensor it is meant for, in as many channels as the benchmark counts."""
    needs(modality)
    out = tmp_path / "index"
    assert (
        run(
            [
                "data",
                "index",
                layout,
                str(tree(layout, tmp_path / "data")),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert run(["data", "check", str(out), "--modality", modality, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert not [one for one in report["findings"] if one["severity"] == "error"]
    assert {len(split["channels"]) for split in report["splits"]} == {channels}

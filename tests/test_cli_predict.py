"""`simmat predict`: what lies beside a mask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image

from simmat.cli import run


def test_the_file_beside_a_mask_begins_with_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs read it, and must see when it means something else."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    image = tmp_path / "s.png"
    Image.fromarray(np.full((40, 56), 60, np.uint8)).save(image)
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    assert run(["predict", str(bundle), str(image), "--point", "3,4", "--out", str(out), "--device", "cpu"]) == 0
    said = json.loads((out / "s.json").read_text(encoding="utf-8"))
    assert next(iter(said.items())) == ("format", 1)
    assert (said["size_hw"], said["point_coords_xy"]) == ([40, 56], [[3.0, 4.0]])


def test_a_bad_file_leaves_nothing_of_the_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the masks would pass for all; those of an earlier call stay."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    for name in "ab":
        Image.fromarray(np.full((40, 56), 60, np.uint8)).save(tmp_path / f"{name}.png")
    call = ["predict", str(bundle), "--point", "3,4", "--out", str(out), "--device", "cpu"]
    assert run([*call, str(tmp_path / "a.png")]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert run([*call, str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert "b.png" in capsys.readouterr().err

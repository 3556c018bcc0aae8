"""`simmat predict --measure` of images whose channels differ."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from simmat.cli import run


def write(path: Path, channels: tuple[str, ...]) -> None:
    """Write an OME-TIFF with a bright square."""
    planes = np.full((len(channels), 48, 48), 100, np.uint16)
    planes[:, 16:32, 16:32] = 3000
    tifffile.imwrite(
        path,
        planes,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": list(channels)}},
    )


def test_an_image_of_other_channels_fails_and_the_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One foreign file among thousands must not cost the table at the end of the night."""
    pytest.importorskip("simmat_plugin_lite")
    images = tmp_path / "images"
    images.mkdir()
    write(images / "a.ome.tif", ("DAPI", "GFP"))
    write(images / "b.ome.tif", ("DAPI", "Cy5"))
    write(images / "c.ome.tif", ("DAPI", "GFP"))
    out = tmp_path / "out"
    words = ["predict", "--foundation", "lite", "--modality", "microscopy", str(images)]
    words += ["--point", "24,24", "--measure", "--device", "cpu", "--out", str(out)]
    assert run(words) == 2
    first, last = capsys.readouterr().err.split("1 of 3 images failed")
    for text in (first, last):  # at once, and at the end
        assert "b.ome.tif" in text
        assert "cy5" in text
    with (out / "objects.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == ["a", "c"]
    assert float(rows[0]["intensity_mean-gfp [count]"]) > 100
    assert list(out.glob("b*")) == []

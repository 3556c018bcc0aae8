"""A bundle trained on kelvin names the unit of files that state none, with the option that says it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from simmat import training
from simmat.cli import run
from simmat.config import load_config
from simmat.plugins.loader import load_plugins

pytest.importorskip("simmat_testing")


def kelvin(rng: np.random.Generator) -> np.ndarray:
    """A warm disc before a wall (40, 56)."""
    rows, columns = np.mgrid[:40, :56]
    wall = rng.normal(295, 0.5, (40, 56)) + columns / 20
    wall[(rows - 20) ** 2 + (columns - 28) ** 2 < 64] += rng.uniform(8, 11)
    return wall


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 14 images in centikelvin, which the files state."""
    root = tmp_path_factory.mktemp("kelvin")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :56]
    mask = ((rows - 20) ** 2 + (columns - 28) ** 2 < 64).astype(np.uint8)
    lines = ["id,split,image,mask"]
    for folder in ("images", "masks"):
        (root / "data" / folder).mkdir(parents=True)
    for number in range(14):
        stored = np.rint(kelvin(rng) * 100).astype(np.uint16)
        tifffile.imwrite(
            root / f"data/images/{number}.tif", stored, description='{"unit": "cK"}'
        )
        Image.fromarray(mask).save(root / f"data/masks/{number}.png")
        split = "train" if number < 12 else "val"
        lines.append(f"{number},{split},images/{number}.tif,masks/{number}.png")
    (root / "data/manifest.csv").write_text("\n".join(lines) + "\n")
    (root / "data/card.toml").write_text('format = 1\nregions = "instances"\n')
    settings = {
        "modality": "thermal",
        "data": root / "data",
        "out": root / "run",
        "foundation": "tiny",
        "heads": "prompt",
        "image_size": 64,
        "steps": 1,
        "batch_size": 2,
        "device": "cpu",
        "pictures": False,
    }
    training.train(load_config(None, settings), load_plugins())
    return root / "run"


def folder_of(folder: Path, factor: float, offset: float, kind: str) -> Path:
    """Write two images that state no unit."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(2):
        stored = (kelvin(rng) * factor + offset).astype(kind)
        tifffile.imwrite(folder / f"{number}.tif", stored)
    return folder


def predict(bundle: Path, files: Path, out: Path, *more: str) -> int:
    call = ["predict", str(bundle), str(files), "--point", "28,20", *more]
    return run([*call, "--out", str(out), "--device", "cpu"])


@pytest.mark.parametrize(
    ("unit", "factor", "offset", "kind"),
    [
        ("K", 1, 0, "float32"),
        ("cK", 100, 0, "uint16"),
        ("C", 1, -273.15, "float32"),
        ("K64", 64, 0, "uint16"),
    ],
)
def test_the_unit_that_fits_is_named(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    unit: str,
    factor: float,
    offset: float,
    kind: str,
) -> None:
    """The files are read as counts, which the model refuses; the user learns which option they need."""
    files = folder_of(tmp_path / "files", factor, offset, kind)
    assert predict(bundle, files, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "read as thermal [count], the training images as thermal [K]" in said
    assert f"they fit with --modality-option thermal.unit={unit}\n" in said
    option = ("--modality-option", f"unit={unit}")
    assert predict(bundle, files, tmp_path / "repaired", *option) == 0
    assert "training images" not in capsys.readouterr().err

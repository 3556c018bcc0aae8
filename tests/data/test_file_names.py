"""Files whose names are not UTF-8 text, as a camera or an old archive writes them, are files as any other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from runs import config, gray_set, registry

from simmat import training
from simmat.cli import run

NAMES = [os.fsdecode(f"im\xff{index}.png".encode("latin-1")) for index in range(9)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set by folders, all of whose file names hold the byte FF; s0 is in train and in test."""
    root = gray_set(tmp_path / "set")
    (root / "manifest.csv").unlink()
    splits = ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    try:
        for index, (split, name) in enumerate(zip(splits, NAMES, strict=True)):
            for folder in ("images", "masks"):
                (root / folder / split).mkdir(exist_ok=True)
                (root / folder / f"s{index}.png").rename(root / folder / split / name)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    (root / "images/test" / NAMES[8]).write_bytes(
        (root / "images/train" / NAMES[0]).read_bytes()
    )
    return root


@pytest.mark.plugins("report")
def test_every_command_takes_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`data check` passed them and training ended in a traceback; so might a later step of the way."""
    out = tmp_path / "run"
    assert run(["data", "check", str(data), "--modality", "gray", "--json"]) == 2, (
        "one image is in two splits"
    )
    said = json.loads(capsys.readouterr().out)
    assert [one["severity"] for one in said["findings"]].count("error") == 1
    assert [split["samples"] for split in said["splits"]] == [5, 2, 2]
    training.train(config(data, out, steps=1, train_images=3), registry())
    training.resume(out, registry())
    bundle, scores = str(out), tmp_path / "scores.json"
    device = ["--device", "cpu"]
    assert (
        run(
            [
                "eval",
                bundle,
                "--data",
                str(data),
                "--no-zero-shot",
                "--out",
                str(scores),
                *device,
            ]
        )
        == 0
    )
    scored = {
        entry["sample"]
        for entry in json.loads(scores.read_text(encoding="utf-8"))["scores"]
    }
    assert scored == {f"test/{Path(name).stem}" for name in NAMES[7:]}
    image = str(data / "images/test" / NAMES[7])
    assert (
        run(
            [
                "predict",
                bundle,
                image,
                "--point",
                "10,10",
                "--out",
                str(tmp_path / "out"),
                *device,
            ]
        )
        == 0
    )
    assert (tmp_path / "out" / f"{Path(NAMES[7]).stem}_mask.png").is_file()

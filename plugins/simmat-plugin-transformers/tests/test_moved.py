"""A run on a model in a folder goes on where that folder has moved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from simmat import training
from simmat.cli import run
from simmat.config import load_config
from simmat.errors import ConfigError
from simmat.plugins.loader import load_plugins


def test_a_run_finds_its_model_by_what_is_in_it(tiny_of: Any, tmp_path: Path) -> None:
    """Its weights are compared, not the name of their folder; other weights are refused."""
    data, out = tmp_path / "data", tmp_path / "run"
    assert (
        run(
            [
                "data",
                "simulate",
                "--modality",
                "gray",
                "--out",
                str(data),
                "--count",
                "8",
                "--size",
                "64",
                "64",
            ]
        )
        == 0
    )
    first = shutil.copytree(tiny_of("sam").folder, tmp_path / "first")
    settings = {
        "modality": "gray",
        "data": data,
        "out": out,
        "foundation": f"hf/{first}",
        "steps": 1,
        "batch_size": 2,
    }
    training.train(
        load_config(None, settings | {"device": "cpu", "pictures": False}),
        load_plugins(),
    )
    second = first.rename(tmp_path / "second")
    file = out / "config.toml"
    file.write_text(file.read_text().replace(str(first), str(second)))
    assert training.resume(out, load_plugins()) == out / "bundle.safetensors"

    weights = second / "model.safetensors"
    save_file(
        {name: tensor + 1 for name, tensor in load_file(weights).items()},
        weights,
        {"format": "pt"},
    )
    with pytest.raises(ConfigError, match=r"sha256.*restore"):
        training.resume(out, load_plugins())

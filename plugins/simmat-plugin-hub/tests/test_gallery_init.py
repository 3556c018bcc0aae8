"""A training that starts from a bundle of a gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import config, gray_set, registry
from simmat_plugin_hub import index_folder, push_bundle

from simmat import training
from simmat.bundle import read_bundle
from simmat.config import dump_toml, load_config
from simmat.errors import ConfigError


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first")
    settings = config(
        gray_set(root / "set"), root / "run", steps=1, lr=1e-2, heads="prompt,dense"
    )
    training.train(settings, registry())
    return root


def test_a_training_starts_from_a_bundle_of_a_gallery(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settings file may name it too: there it is no path below the folder of the file."""
    push_bundle(
        first / "run", str(tmp_path / "gallery/squares.safetensors"), licence="cc0-1.0"
    )
    index_folder(tmp_path / "gallery")
    monkeypatch.setenv("SIMMAT_GALLERY", str(tmp_path / "gallery"))
    started = config(
        first / "set",
        tmp_path / "run",
        init="gallery:squares",
        steps=1,
        heads="prompt,dense",
        tune=None,
    )
    (tmp_path / "settings.toml").write_text(dump_toml(started))
    training.train(load_config(tmp_path / "settings.toml"), registry())
    before: Any = read_bundle(first / "run")[0].metrics["val"]
    record = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert record["miou_object"] == pytest.approx(before["miou_object"], abs=1e-6)
    assert load_config(tmp_path / "run/config.toml").init == Path("gallery:squares")
    with pytest.raises(ConfigError, match="hf://a/b/c/d"):
        training.train(
            config(first / "set", tmp_path / "other", init="hf://a/b/c/d"), registry()
        )

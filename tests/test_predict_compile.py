"""Prediction with a compiled network gives the masks that it gives without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import tiny_bundle
from PIL import Image
from runs import registry

import simmat
from simmat.cli import run
from simmat.errors import ConfigError


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gray image; no plugin is needed to read it."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")
    file = tmp_path / "s.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 99, (40, 56), np.uint8)).save(file)
    return file


def test_encoder_and_decoder_are_compiled(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's images and the workers of an executor load the model by the same options."""
    calls: list[str] = []

    def compile_nothing(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            calls.append(function.__name__)
            return function(*given)

        return counted

    monkeypatch.setattr(torch, "compile", compile_nothing)
    bundle, masks = tiny_bundle(tmp_path / "bundle"), []
    for name, options in {"plain": [], "compiled": ["--compile"]}.items():
        out = tmp_path / name
        call = ["predict", str(bundle), str(image), "--point", "3,4", "--out", str(out), "--device", "cpu", *options]
        assert run(call) == 0
        masks.append((out / "s_mask.png").read_bytes())
    assert masks[0] == masks[1]
    assert [name for name in calls if name in ("encode", "decode")] == ["encode", "decode"]


def test_without_a_compiler_nothing_is_written(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first image would fail with a page of torch's own text."""

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found in xyz-c++")

    monkeypatch.setattr(torch, "compile", fails)
    bundle, out = tiny_bundle(tmp_path / "bundle"), tmp_path / "out"
    call = ["predict", str(bundle), str(image), "--point", "3,4", "--out", str(out), "--device", "cpu", "--compile"]
    assert run(call) == 2
    message = capsys.readouterr().err
    for part in ("--compile", "xyz-c++", "g++", "CXX"):
        assert part in message
    assert not out.exists() or not list(out.iterdir())


def test_an_untuned_model_is_not_compiled(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its transfer layer is another one for each image, so it would compile each time."""
    call = ["predict", "--foundation", "lite", "--modality", "gray", str(image), "--point", "3,4", "--compile"]
    assert run([*call, "--out", str(tmp_path / "out")]) == 2
    assert "--compile" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="compile"):
        simmat.load(foundation="tiny", modality="gray", compile=True, registry=registry())


@pytest.mark.slow
def test_compiled_for_real_the_answers_are_equal_to_rounding(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one and for several clicks, boxes, and all objects, whose numbers of prompts differ."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    bundle = tiny_bundle(tmp_path / "bundle")
    plain, compiled = (simmat.load(bundle, compile=on, device="cpu", registry=registry()) for on in (False, True))
    prompts: list[dict[str, Any]] = [
        {"points": [(3, 4)]},
        {"points": [(3, 4), (20, 9)], "labels": [1, 0]},
        {"points": [(3, 4), (20, 9), (50, 30)], "labels": [1, 0, 1]},
        {"box": (2, 3, 30, 20)},
    ]
    for model in (plain, compiled):
        model.set_image(image)
    for prompt in prompts:
        expected, found = plain.predict(**prompt), compiled.predict(**prompt)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert len(compiled.segment_everything()) == len(plain.segment_everything())

"""`simmat doctor`: what it finds, and what it says to do."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from simmat_plugin_report import doctor

from simmat.cli import run
from simmat.plugins.registry import PluginReport, Registry


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quiet machine with few plugins and folders of its own."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "report,sam")
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path / "cache"))


def found(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Any]:
    assert run(["doctor", "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["ok"] is (code == 0)
    return answer


def said(answer: dict[str, Any], severity: str) -> str:
    return "\n".join(
        f"{f['section']}: {f['what']} -> {f['remedy']}"
        for f in answer["findings"]
        if f["severity"] == severity
    )


@pytest.mark.usefixtures("alone")
def test_a_sound_installation_is_described_part_by_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is what a bug report needs, and its exit code is 0 although no weights are there yet."""
    answer = found(capsys, 0)
    parts = answer["sections"]
    assert list(parts) == [
        "versions",
        "devices",
        "threads",
        "memory",
        "plugins",
        "weights",
        "folders",
    ]
    assert importlib.metadata.version("torch") in parts["versions"]["torch"]
    assert "simmat foundations fetch sam_vit_b" in parts["weights"]["sam_vit_b"]
    assert run(["doctor"]) == 0
    assert "0 problems" in capsys.readouterr().out


@pytest.mark.usefixtures("alone")
def test_a_broken_plugin_is_a_problem_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others work on, so only this says why a sensor is missing."""
    report = PluginReport(
        "sonar",
        "acme-sonar",
        "1.0",
        error="ModuleNotFoundError: No module named 'acme'",
    )
    monkeypatch.setattr(doctor, "load_plugins", lambda: Registry([report], []))
    problems = said(found(capsys, 1), "problem")
    assert "No module named 'acme'" in problems
    assert "pip uninstall acme-sonar" in problems


@pytest.mark.usefixtures("alone")
def test_more_threads_than_cores_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container's quota is not seen by torch, nor by a user who sets OMP_NUM_THREADS from nproc."""
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(doctor, "usable_cpus", lambda: 2)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 1 << 30)
    answer = found(capsys, 1)
    assert "64 threads on 2 cores" in said(answer, "problem")
    assert "OMP_NUM_THREADS=2" in said(answer, "problem")
    assert answer["sections"]["memory"]["container"] == "1.0 GiB at most"


@pytest.mark.usefixtures("alone")
def test_a_library_older_than_simmat_needs_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pip lets another package lower it, with a warning nobody reads."""
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "0.1" if name == "safetensors" else version(name),
    )
    problems = said(found(capsys, 1), "problem")
    assert "got 0.1" in problems
    assert "pip install 'safetensors>=" in problems


@pytest.mark.usefixtures("alone")
def test_weights_of_another_size_are_a_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A copy that was cut off would be refused only when a training starts."""
    from simmat.plugins.loader import load_plugins

    file = load_plugins().foundation("sam_vit_b").weights
    assert file is not None
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / file.filename).write_bytes(b"cut off")
    assert f"{file.filename} has 7 bytes" in said(found(capsys, 1), "problem")


@pytest.mark.usefixtures("alone")
def test_a_check_that_fails_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever calls a doctor has something broken, perhaps torch itself."""

    def broken() -> int:
        raise ImportError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr("torch.cuda.device_count", broken)
    answer = found(capsys, 1)
    assert "libcudart.so" in said(answer, "problem")
    assert answer["sections"]["threads"]

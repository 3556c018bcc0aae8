"""Processes that load data: how many there are, and that they change nothing."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from runs import config, gray_set, registry

from simmat import training
from simmat.training import RunFolder
from simmat.training.build import loading_processes

Usage = namedtuple("Usage", "free")


def test_a_run_is_the_same_with_any_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their number nor how the system starts them (macOS and Windows do not fork) may choose the result."""
    data = gray_set(tmp_path / "set")
    results = []
    for workers, method in ((0, "fork"), (2, "fork"), (2, "spawn")):
        monkeypatch.setattr("simmat.training.build.START_METHOD", method)
        monkeypatch.setattr("simmat.data.index.START_METHOD", method)
        out = tmp_path / f"{method}{workers}"
        settings = config(
            data,
            out,
            steps=3,
            val_every=3,
            val_images=1,
            workers=workers,
            pictures=False,
        )
        bundle = training.train(settings, registry())
        losses = [
            record["loss"]
            for record in RunFolder(out).records()
            if record["kind"] == "train"
        ]
        results.append((losses, bundle.read_bytes()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    ("cores", "device", "processes", "count", "free", "expected"),
    [
        (2, "cpu", 1, 10**6, 2**34, 0),
        (8, "cpu", 1, 10**6, 2**34, 2),
        (16, "cpu", 2, 10**6, 2**34, 2),
        (2, "cuda", 1, 10**6, 2**34, 1),
        (64, "cuda", 2, 10**6, 2**34, 8),
        (64, "cuda", 1, 20, 2**34, 0),
        (64, "cuda", 1, 70, 2**34, 2),
        (64, "cuda", 1, 10**6, 2**16, 0),
    ],
)
def test_processes_are_as_many_as_pay_off(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    device: str,
    processes: int,
    count: int,
    free: int,
    expected: int,
) -> None:
    """On a GPU no step should wait; on a CPU, for little data or without room they would only cost."""
    module = "simmat.training.build"
    monkeypatch.setattr(f"{module}.START_METHOD", "fork")
    monkeypatch.setattr(f"{module}.usable_cpus", lambda: cores)
    monkeypatch.setattr(f"{module}.torch.get_num_threads", lambda: cores)
    monkeypatch.setattr(f"{module}.shutil.disk_usage", lambda _: Usage(free))
    settings = config(tmp_path, tmp_path / "run")
    items = [(torch.zeros(2**12),)]
    where = SimpleNamespace(num_processes=processes, device=torch.device(device))

    def chosen(**changes: Any) -> int:
        given = settings.model_copy(update=changes)
        return loading_processes(
            given, cast(Accelerator, where), cast(Any, items), count
        )

    assert chosen() == expected
    assert chosen(workers=3) == 3
    monkeypatch.setattr(f"{module}.START_METHOD", "spawn")
    assert chosen() == 0

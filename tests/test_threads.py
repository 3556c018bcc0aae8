"""Number of CPU threads and how they wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import tiny_bundle
from runs import registry

from simmat import threads
from simmat.bundle import load_bundle
from simmat.model import SimMAT
from simmat.nn.device import fixed_threads
from simmat.predictor import Predictor
from simmat.threads import (
    CpuLoad,
    cpu_quota,
    memory_limit,
    prepare_threads,
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        pytest.param({}, (None, None), id="no cgroups"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/memory.max": "1073741824\n",
            },
            (1.5, 1 << 30),
            id="version 2 in a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/user/job\n",
                "sys/fs/cgroup/user/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/user/memory.max": "max\n",
            },
            (2.0, None),
            id="a limit of the group above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "7:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            (4.0, None),
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "7:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            (None, None),
            id="version 1 without a limit",
        ),
    ],
)
def test_limits_of_a_container_are_read(
    files: dict[str, str], limits: tuple[float | None, int | None], tmp_path: Path
) -> None:
    """OpenMP does not read them, and starts a thread for every core of the machine."""
    root = write(tmp_path, files)
    cpu_quota.cache_clear()  # pytest gives the next case a folder of the same name
    assert (cpu_quota(root), memory_limit(root)) == limits


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {**threads.SHORT_SPIN, "OMP_NUM_THREADS": "2"}),
        ({"OMP_NUM_THREADS": "6"}, {"OMP_NUM_THREADS": "6", **threads.SHORT_SPIN}),
        ({"GOMP_SPINCOUNT": "9"}, {"GOMP_SPINCOUNT": "9", "OMP_NUM_THREADS": "2"}),
    ],
)
def test_what_the_user_has_set_stays(
    before: dict[str, str], after: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who tunes a machine knows better."""
    monkeypatch.setattr(threads, "affinity_cpus", lambda: 8)
    monkeypatch.setattr(threads, "cpu_quota", lambda: 2.0)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    environment = dict(before)
    prepare_threads(environment)
    assert environment == after


def test_importing_simmat_first_shortens_the_spinning_of_torchs_threads() -> None:
    """OpenMP reads the variable once, when torch loads it."""
    bare = {
        name: value
        for name, value in os.environ.items()
        if name not in threads.WAIT_VARIABLES
    }
    code = "import os, sys, json, simmat; print(json.dumps([os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=bare,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [threads.SHORT_SPIN["GOMP_SPINCOUNT"], False]


def test_the_load_is_what_other_processes_leave_free() -> None:
    """Of two cores over two seconds, another process took one second and a half."""
    clock = [(10.0, 5.0)]
    load = CpuLoad(lambda: clock[0])
    assert load.free_cpus() == float("inf")
    clock[0] = (12.0, 7.5)
    assert load.free_cpus() == 1.25
    clock[0] = (12.1, 7.5)
    assert load.free_cpus() == 1.25  # too short to tell


def test_a_prediction_uses_as_many_threads_as_cores_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that wait for a core others have took five times the CPU time; a training keeps its bits."""
    seen, free = [], [0.4]
    encode = SimMAT.encode
    monkeypatch.setattr(
        SimMAT,
        "encode",
        lambda *given: (seen.append(torch.get_num_threads()), encode(*given))[1],
    )
    monkeypatch.setattr(CpuLoad, "free_cpus", lambda self: free[0])
    monkeypatch.setattr("simmat.nn.device.threads_are_chosen", lambda: False)
    predictor = Predictor.of_bundle(
        load_bundle(tiny_bundle(tmp_path / "bundle", image_size=32), registry())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for free[0] in (0.4, 2.0, 9.0):
            predictor.set_image(np.zeros((1, 8, 8), np.uint8))
        free[0] = 0.4
        with fixed_threads():
            predictor.set_image(np.zeros((1, 8, 8), np.uint8))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2, 3, 3]

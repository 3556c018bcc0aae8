"""One file with all results of a bench: written by the report, and read in place of running cells again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_set import TINY, bench_of, fill
from simmat_plugin_bench.cells import read_results, take_results
from simmat_plugin_bench.report import write_report

from simmat.cli import run
from simmat.errors import DataError

SET = '[[data]]\nname = "discs"\nmodality = "gray"\ndata = "set"\n'
ARM = '[[arm]]\nname = "x"\n'
SEEDS = "seeds = [0, 1]\nscratch_lr = 1e-3\n"


def reported(folder: Path) -> Path:
    """A bench with two of its cells done; returns its results.json."""
    folder.mkdir()
    bench = bench_of(folder, SEEDS + TINY + SET + ARM)
    for cell, test in zip(bench.cells, (0.25, 0.75), strict=False):
        fill(cell, val=0.5, test=test, test_ious={"s1": [test]})
    write_report(bench)
    return bench.out / "results.json"


def test_cells_are_put_back_as_they_were(tmp_path: Path) -> None:
    """Who has the file has the table, the page and the intervals, without a step of training."""
    file = reported(tmp_path / "a")
    (tmp_path / "b").mkdir()
    again = bench_of(tmp_path / "b", SEEDS + TINY + SET + ARM)
    assert take_results(file, again.cells) == (2, 0)
    assert [cell.state() for cell in again.cells][:3] == ["tested", "tested", "open"]
    write_report(again)
    for name in ("table.md", "table.tex", "table.csv", "results.json", "index.html"):
        assert (again.out / name).read_text().replace("/b/", "/a/") == (
            file.parent / name
        ).read_text()


def test_what_has_begun_here_and_what_had_other_settings_stays_out(
    tmp_path: Path,
) -> None:
    """A result of other settings would stand in the wrong row; one that is here is not replaced."""
    file = reported(tmp_path / "a")
    (tmp_path / "b").mkdir()
    other = bench_of(
        tmp_path / "b", SEEDS + TINY.replace("steps = 2", "steps = 3") + SET + ARM
    )
    assert take_results(file, other.cells) == (0, 2)
    assert not other.out.exists()
    (tmp_path / "c").mkdir()
    begun = bench_of(tmp_path / "c", SEEDS + TINY + SET + ARM)
    fill(begun.cells[0], val=0.1, test=0.125)
    assert take_results(file, begun.cells) == (1, 0)
    result = begun.cells[0].result()
    assert result is not None
    assert result["test"]["miou_object"] == 0.125


def _moved(values: Any) -> None:
    first, second = values["cells"].values()
    first["result"], second["settings"]["seed"] = second["result"], 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("format"),
        lambda values: values.update(format=2),
        lambda values: values.update(cells=[]),
        lambda values: next(iter(values["cells"].values()))["result"].update(
            seconds=-1
        ),
        lambda values: next(iter(values["cells"].values()))["settings"].update(lr=0.5),
        _moved,
    ],
)
def test_a_damaged_file_is_refused_whole(damage: Any, tmp_path: Path) -> None:
    """It comes from somebody else; one that was edited would pass for a measurement."""
    file = reported(tmp_path / "a")
    values = json.loads(file.read_text())
    damage(values)
    file.write_text(json.dumps(values))
    with pytest.raises(DataError) as refused:
        read_results(file)
    assert str(file) in str(refused.value)


@pytest.mark.plugins("bench", "sam")
def test_a_report_is_made_from_the_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published figures are read without the data, which does not come with the project."""
    file = reported(tmp_path / "a")
    out = tmp_path / "again"
    options = ["--out", str(out), "--results", str(file)]
    assert run(["bench", str(tmp_path / "a/bench.toml"), *options, "--report"]) == 0
    assert "2 results taken" in capsys.readouterr().out
    assert (out / "table.csv").read_text() == (file.parent / "table.csv").read_text()
    assert run(["bench", str(tmp_path / "a/bench.toml"), *options, "--dry-run"]) == 2
    assert "--results" in capsys.readouterr().err

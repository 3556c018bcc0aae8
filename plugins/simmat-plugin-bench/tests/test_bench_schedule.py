"""What a bench runs next, read off what lies on disk."""

from __future__ import annotations

from pathlib import Path

from bench_set import TINY, bench_of, cells_named, fill
from simmat_plugin_bench.cells import FORMAT
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.run import remove_bundles
from simmat_plugin_bench.schedule import all_jobs, arm_state

from simmat.io.files import atomic_write_json

SET = '[[data]]\nname = "a"\nmodality = "gray"\ndata = "set"\n'
ARM = '[[arm]]\nname = "x"\nfrom_scratch = true\n'
RATES = "seeds = [0, 1]\nlr = [1e-2, 1e-3, 1e-4]\n"


def jobs(bench: Bench) -> set[tuple[str, bool]]:
    """(cell, whether its test split is read)."""
    return {(job.cell.name.split("/")[-1], job.test) for job in all_jobs(bench)}


def test_every_rate_is_tried_with_the_first_seed_and_the_test_split_unread(
    tmp_path: Path,
) -> None:
    """A rate chosen where the result is read would make the result too good; the last to run may be the best."""
    bench = bench_of(tmp_path, RATES + TINY + SET + ARM)
    assert jobs(bench) == {
        ("seed-0_lr-0.01", False),
        ("seed-0_lr-0.001", False),
        ("seed-0_lr-0.0001", False),
    }
    for cell in cells_named(bench, "seed-0")[:2]:
        fill(cell, val=0.5)
    assert jobs(bench) == {("seed-0_lr-0.0001", False)}


def test_the_best_rate_on_validation_is_tested_and_repeated(tmp_path: Path) -> None:
    """Only the chosen rate reads the test split; the first seed is not trained twice."""
    bench = bench_of(tmp_path, RATES + TINY + SET + ARM)
    for cell, val in zip(cells_named(bench, "seed-0"), (0.2, 0.6, 0.4), strict=True):
        fill(cell, val=val)
    assert jobs(bench) == {("seed-0_lr-0.001", True), ("seed-1_lr-0.001", True)}
    chosen = arm_state(bench, bench.settings.data[0], bench.arms[0]).chosen
    for cell in chosen:
        # however it did there, and whatever the test split says, the choice stands
        fill(cell, val=0.1, test=0.9)
    fill(chosen[0], val=0.6, test=0.0)
    assert jobs(bench) == set()


def test_a_rate_that_diverged_has_lost(tmp_path: Path) -> None:
    """A loss that is no number is an answer about that rate; an arm without another rate is not run further."""
    bench = bench_of(tmp_path, RATES + TINY + SET + ARM)
    for cell, val in zip(cells_named(bench, "seed-0"), (0.9, 0.3, 0.1), strict=True):
        fill(cell, val=val)
    fill(cells_named(bench, "seed-0")[0], val=None, diverged="the loss became nan")
    assert ("seed-0_lr-0.001", True) in jobs(bench)
    for cell in cells_named(bench, "seed-0"):
        fill(cell, val=None, diverged="the loss became nan")
    assert jobs(bench) == set()
    assert arm_state(bench, bench.settings.data[0], bench.arms[0]).chosen == ()


def test_a_failed_cell_is_tried_again(tmp_path: Path) -> None:
    """A full disk or a killed process says nothing about the arm."""
    bench = bench_of(tmp_path, TINY + SET + ARM)
    cell = bench.cells[0]
    fill(cell, val=0.5, test=0.5)
    cell.folder.result.unlink()
    atomic_write_json(cell.folder.failure, {"format": FORMAT, "code": -9, "log": ""})
    assert (cell.state(), jobs(bench)) == ("failed", {("seed-0", True)})


def test_bundles_of_rates_that_lost_are_removed(tmp_path: Path) -> None:
    """Hundreds of bundles nobody asks for would fill a disk."""
    bench = bench_of(tmp_path, RATES + TINY + SET + ARM)
    tried = cells_named(bench, "seed-0")
    for cell, val in zip(tried, (0.2, 0.6, 0.4), strict=True):
        fill(cell, val=val)
        cell.folder.run.mkdir(parents=True)
        (cell.folder.run / "bundle.safetensors").touch()
    remove_bundles(bench, tried[1])
    assert [(cell.folder.run / "bundle.safetensors").is_file() for cell in tried] == [
        False,
        True,
        False,
    ]

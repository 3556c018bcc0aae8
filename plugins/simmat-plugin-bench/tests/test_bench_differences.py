"""How much higher an arm of a bench scores than its reference, and how sure that is."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_set import TINY, bench_of, cells_named, fill
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.report import Difference, differences, write_report
from simmat_plugin_bench.results import collect

from simmat.errors import ConfigError
from simmat.evaluation.scores import mean_interval

SETS = "".join(
    f'[[data]]\nname = "{name}"\nmodality = "gray"\ndata = "set-{name}"\n'
    for name in ("a", "b")
)
ARMS = '[[arm]]\nname = "x"\nseeds = [0, 1]\n[[arm]]\nname = "from scratch"\nfrom_scratch = true\nseeds = [0, 1]\n'
HEAD = 'reference = "from scratch"\n'
MODEL = TINY.replace("tiny", "sam_vit_b")
BEFORE = {"one": [0.3, 0.5], "two": [0.4], "three": [0.2, 0.1, 0.6]}
GAINS = {"one": [0.2, 0.1], "two": [-0.1], "three": [0.4, 0.3, 0.0]}
AFTER = {
    sample: [a + b for a, b in zip(BEFORE[sample], GAINS[sample], strict=True)]
    for sample in BEFORE
}


def put(bench: Bench, name: str, ious: dict[str, list[float]], **changes: Any) -> None:
    """Fill the cells of a name with objects of these IoUs."""
    values = [iou for objects in ious.values() for iou in objects]
    for cell in cells_named(bench, name):
        fill(
            cell,
            val=0.5,
            test=float(np.mean(values)),
            **({"test_ious": ious} | changes),
        )


def filled(folder: Path, head: str = HEAD, sets: str = SETS) -> Bench:
    """A bench of which x and from scratch are done on both sets, all seeds alike."""
    bench = bench_of(folder, head + MODEL + sets + ARMS)
    put(bench, "/x/", AFTER)
    put(bench, "/from-scratch/", BEFORE)
    return bench


def of_x(bench: Bench) -> tuple[dict[str, Difference], float | None]:
    """The differences of x on each set, and their mean."""
    return next(
        (on, mean) for arm, on, mean in differences(collect(bench)) if arm.name == "x"
    )


def test_an_interval_is_that_of_the_differences_of_the_same_objects(
    tmp_path: Path,
) -> None:
    """Two intervals that overlap say little: what images have in common drops out only in pairs."""
    found = of_x(filled(tmp_path))[0]["a"]
    assert found.mean == pytest.approx(
        np.mean([gain for gains in GAINS.values() for gain in gains])
    )
    assert found.interval == pytest.approx(mean_interval(GAINS.values()), abs=0.02)
    assert str(found).startswith("+0.150 [")


def test_sets_that_are_not_averaged_are_not(tmp_path: Path) -> None:
    """They have a difference of their own and no part in the mean."""
    bench = filled(tmp_path, sets=SETS + "averaged = false\n")
    put(bench, "b/sam_vit_b/x/", BEFORE)
    on, mean = of_x(bench)
    assert on["b"].mean == pytest.approx(0)
    assert mean == on["a"].mean


def test_a_figure_that_lacks_seeds_is_marked_and_gives_no_mean(tmp_path: Path) -> None:
    """As the scores themselves do."""
    bench = filled(tmp_path)
    cells_named(bench, "a/sam_vit_b/x/seed-1")[0].folder.result.unlink()
    on, mean = of_x(bench)
    assert str(on["a"]).endswith("] (1 of 2 seeds)")
    assert mean is None


def test_an_arm_is_compared_with_the_reference_of_its_own_model(tmp_path: Path) -> None:
    """Only a peer that has none of its own is compared with another model's."""
    arms = ARMS + "".join(
        f'[[arm]]\nname = "{name}"\nfoundation = "sam_vit_{size}"\nseeds = [0, 1]\n{more}\n'
        for name, size, more in (
            ("y", "l", ""),
            ("from scratch", "l", "from_scratch = true"),
            ("z", "h", "peer = true"),
        )
    )
    bench = bench_of(tmp_path, HEAD + MODEL + SETS + arms)
    for name, ious in (
        ("b/from", BEFORE),
        ("l/from", AFTER),
        ("l/y", AFTER),
        ("h/z", AFTER),
    ):
        put(bench, f"sam_vit_{name}", ious)
    means = {arm.name: on["a"].mean for arm, on, _ in differences(collect(bench))}
    assert means == {"y": pytest.approx(0), "z": pytest.approx(0.15)}


def test_a_reference_that_is_added_on_some_sets_is_not_compared_with_itself(
    tmp_path: Path,
) -> None:
    """Declared for one set and added for the other, it is one arm in two parts."""
    on = ARMS.replace("from_scratch = true\n", 'from_scratch = true\non = "a"\n')
    assert on != ARMS
    bench = bench_of(tmp_path, "scratch_lr = 1e-3\n" + HEAD + MODEL + SETS + on)
    put(bench, "/x/", AFTER)
    put(bench, "/from-scratch/", BEFORE)
    assert [arm.name for arm, *_ in differences(collect(bench))] == ["x"]


@pytest.mark.parametrize("ious", [None, {"one": [0.5]}])
def test_without_the_same_objects_there_is_no_interval(
    tmp_path: Path, ious: dict[str, list[float]] | None
) -> None:
    """Other objects cannot be paired; the difference itself stands."""
    bench = filled(tmp_path)
    cell = cells_named(bench, "a/sam_vit_b/x/seed-1")[0]
    fill(cell, val=0.5, test=0.5, **({"test_ious": ious} if ious else {}))
    on, _ = of_x(bench)
    assert on["a"].interval is None
    assert on["b"].interval is not None


def test_another_score_has_differences_without_intervals(tmp_path: Path) -> None:
    """The objects' IoUs say nothing of how sure their boundary IoU is."""
    filled(tmp_path)
    bench = bench_of(
        tmp_path, 'score = "by_size.small.miou_object"\n' + HEAD + MODEL + SETS + ARMS
    )
    assert of_x(bench)[0]["a"] == Difference(0.0, None)


def test_the_reference_is_in_table_and_page_and_not_compared_with_itself(
    tmp_path: Path,
) -> None:
    """They are what people read."""
    bench = filled(tmp_path)
    _, (table, *_, page) = write_report(bench)
    text = (
        table.read_text(encoding="utf-8")
        .split('## Difference from "from scratch"')[1]
        .split("\n## ")[0]
    )
    assert "| x | mat-residual | lora | tuner's | +0.150 | +0.150 [" in text
    assert "| from scratch |" not in text
    assert 'Difference from "from scratch"' in html.unescape(
        page.read_text(encoding="utf-8")
    )


def test_a_reference_that_is_not_an_arm_is_refused(tmp_path: Path) -> None:
    """Its table would be missing after hours."""
    with pytest.raises(ConfigError, match=r"'from scrach'.*'from scratch"):
        bench_of(tmp_path, 'reference = "from scrach"\n' + MODEL + SETS + ARMS)


def test_a_reference_on_sets_that_quick_leaves_out_is_right(tmp_path: Path) -> None:
    """The file is checked as it stands, not as --quick leaves it."""
    few = '[[arm]]\nname = "few"\ntrain_images = 4\non = "b"\n[quick]\ndata = "a"\n'
    bench = bench_of(
        tmp_path,
        'reference = "from scratch @ 4 images"\n' + MODEL + SETS + ARMS + few,
        quick=True,
    )
    assert differences(collect(bench)) == []


def test_an_object_counts_with_its_mean_over_seeds(tmp_path: Path) -> None:
    """Else a seed would be taken for an image of its own, and the interval be too narrow."""
    bench = filled(tmp_path)
    same = of_x(bench)[0]["a"]
    up, down = (
        {k: [v + step for v in values] for k, values in AFTER.items()}
        for step in (0.05, -0.05)
    )
    put(bench, "a/sam_vit_b/x/seed-0", up)
    put(bench, "a/sam_vit_b/x/seed-1", down)
    found = of_x(bench)[0]["a"]
    assert found.mean == pytest.approx(same.mean)
    assert found.interval == pytest.approx(same.interval)

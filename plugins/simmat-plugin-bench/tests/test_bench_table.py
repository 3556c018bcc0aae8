"""The tables and the page of a bench."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
from bench_set import TINY, bench_of, cells_named, fill
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.plots import arm_styles, curves_figure
from simmat_plugin_bench.report import (
    csv_rows,
    data_table,
    latex,
    latex_text,
    markdown,
    mean_of,
    overview,
    write_report,
)
from simmat_plugin_bench.results import Results, SeedScores, collect

from simmat.cli import run
from simmat.io.files import atomic_write_json, write_rows

SETS = """
[[data]]
name = "a"
modality = "gray"
data = "set"
[[data]]
name = "b"
modality = "gray"
data = "set"
[[data]]
name = "hard"
modality = "gray"
data = "set"
averaged = false
"""
ARMS = '[[arm]]\nname = "x"\n[[arm]]\nname = "random"\nfrom_scratch = true\n'
SEEDS = "seeds = [0, 1]\n"
MODEL = TINY.replace("tiny", "sam_vit_b")
"""A model that has a zero-shot score; nothing is trained here."""

SCORES = {"a": (0.4, 0.6), "b": (0.5, 0.8), "hard": (0.1, 0.1)}


def filled(folder: Path) -> Bench:
    """A bench of which arm x and zero-shot are done."""
    bench = bench_of(folder, SEEDS + MODEL + SETS + ARMS)
    for data, values in SCORES.items():
        for seed, value in enumerate(values):
            fill(
                cells_named(bench, f"{data}/sam_vit_b/x/seed-{seed}")[0],
                val=0.7,
                test=value,
            )
        fill(
            cells_named(bench, f"{data}/sam_vit_b/zero-shot")[0],
            val=0.1,
            test=0.25,
            trainable=0,
            curve=[],
        )
    return bench


def test_scores_are_mean_and_sample_deviation_over_seeds(tmp_path: Path) -> None:
    """Of a few seeds the deviation with n instead of n - 1 is far too small."""
    results = collect(filled(tmp_path))
    row = next(
        row for row in results.rows if row.data.name == "a" and row.arm.name == "x"
    )
    assert row.score == SeedScores((0.4, 0.6))
    assert str(row.score) == f"0.500 ± {statistics.stdev([0.4, 0.6]):.3f}"
    assert row.gain == pytest.approx(0.25)
    assert str(SeedScores((0.25,))) == "0.250"


DENSE = {"everything": {"ap50": 0.3}, "semantic": {"miou": 0.5}}


def test_a_score_may_be_of_masks_without_prompts(tmp_path: Path) -> None:
    """Rates are chosen by the same figure, and the untuned model, which has no class map, has none."""
    toml = (
        'score = "semantic.miou"\nlr = [1e-3, 1e-4]\n'
        + MODEL
        + SETS.partition('[[data]]\nname = "b"')[0]
        + ARMS
    )
    bench = bench_of(tmp_path, toml)
    for rate, clicks, classes in (("0.001", 0.9, 0.2), ("0.0001", 0.4, 0.6)):
        cell = cells_named(bench, f"a/sam_vit_b/x/seed-0_lr-{rate}")[0]
        val = {
            "kind": "val",
            "step": 2,
            "miou_object": clicks,
            "semantic": {"miou": classes},
        }
        fill(cell, val=clicks, test=clicks)
        values = json.loads(cell.folder.result.read_text())
        values["test"] |= DENSE if classes == 0.6 else {}
        atomic_write_json(cell.folder.result, values | {"val": val})
    fill(
        cells_named(bench, "a/sam_vit_b/zero-shot")[0],
        val=0.1,
        test=0.25,
        trainable=0,
        curve=[],
    )
    row, zero = (
        next(row for row in collect(bench).rows if row.arm.name == name)
        for name in ("x", "zero-shot")
    )
    assert (row.lr, row.score, row.vals, row.gain) == (
        1e-4,
        SeedScores((0.5,)),
        {0: 0.6},
        None,
    )
    assert (zero.score, zero.state) == (None, "no such metric")


def test_the_mean_is_over_the_averaged_data_sets_seed_by_seed(tmp_path: Path) -> None:
    """Its deviation is that of what one run of the whole bench would say."""
    results = collect(filled(tmp_path))
    score, gain, _ = mean_of(
        results, next(arm for arm in results.bench.arms if arm.name == "x")
    )
    assert score is not None
    assert score.values == pytest.approx((0.45, 0.7))
    assert gain == pytest.approx(0.575 - 0.25)


def test_what_is_missing_says_so_and_gives_no_mean(tmp_path: Path) -> None:
    """A mean over fewer data sets looks like one over all of them."""
    bench = filled(tmp_path)
    cells_named(bench, "b/sam_vit_b/x/seed-1")[0].folder.result.unlink()
    table = overview(collect(bench))
    rows = {line[0]: dict(zip(table.head, line, strict=True)) for line in table.rows}
    assert rows["x"]["b"] == "0.500 (1 of 2 seeds)"
    assert rows["x"]["mean"] == "– (1 of 2)"
    assert rows["random"]["a"] == "–"
    assert rows["random"]["mean"] == "– (0 of 2)"
    assert "hard (not averaged)" in table.head


def test_the_terminal_shows_what_has_begun_and_names_the_rest_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An arm that waits stands in the table of all data sets, and in none of theirs."""
    bench = filled(tmp_path)
    for cell in [cell for cell in bench.cells if cell.dataset == "b"]:
        shutil.rmtree(cell.root, ignore_errors=True)
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
        == 0
    )
    first, *rest = capsys.readouterr().out.strip().split("\n\n")
    assert first.startswith("a: ")
    assert "\nx " in first
    assert "random" not in first
    assert [table.split(":")[0] for table in rest[:2]] == ["hard", "all data sets"]
    assert "\nrandom " in rest[1]


def csv_lines(results: Results, folder: Path) -> list[dict[str, str]]:
    """Return the lines of the table as a reader of CSV finds them."""
    write_rows(folder / "table.csv", csv_rows(results))
    with (folder / "table.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_csv_has_a_line_for_every_seed(tmp_path: Path) -> None:
    """Who computes on it must see what is missing; a mean on every seed's line would look like a spread of nothing."""
    bench = filled(tmp_path)
    for seed, val in enumerate((0.1, 0.6)):
        cell = cells_named(bench, f"a/sam_vit_b/x/seed-{seed}")[0]
        memory = {"peak_memory_bytes": 1000 + seed, "peak_device_bytes": None}
        fill(
            cell, val=val, test=SCORES["a"][seed], seconds=100.0 * (seed + 1), **memory
        )
    lines = csv_lines(collect(bench), tmp_path)
    assert len(lines) == 3 * (1 + 2 + 2)
    done = next(
        line
        for line in lines
        if (line["data"], line["arm"], line["seed"]) == ("b", "x", "1")
    )
    assert (float(done["score"]), done["trainable"], done["state"]) == (
        0.8,
        "1000",
        "done",
    )
    missing = next(line for line in lines if line["arm"] == "random")
    assert (missing["score"], missing["state"]) == ("", "not begun")
    found = [line for line in lines if (line["data"], line["arm"]) == ("a", "x")]
    assert [(line["val"], line["seconds"], line["memory_bytes"]) for line in found] == [
        ("0.1", "100.0", "1000"),
        ("0.6", "200.0", "1001"),
    ]
    assert [float(line["gain"]) for line in found] == pytest.approx(
        [0.4 - 0.25, 0.6 - 0.25]
    )


def test_a_figure_that_one_data_set_does_not_give_is_missing_there_alone(
    tmp_path: Path,
) -> None:
    """Sonar without small objects is no reason to lose the table of all other sensors, after hours."""
    small = 'score = "by_size.small.miou_object"\n' + SEEDS + MODEL + SETS + ARMS
    filled(tmp_path)
    for cell in cells_named(bench := bench_of(tmp_path, small), "b/sam_vit_b/"):
        if (result := cell.result()) is not None:
            del result["test"]["by_size"]
            atomic_write_json(cell.folder.result, result)
    table = overview(collect(bench))
    rows = {line[0]: dict(zip(table.head, line, strict=True)) for line in table.rows}
    assert rows["x"]["a"].startswith("0.125")
    assert rows["x"]["b"] == "– (no such metric)"
    assert rows["x"]["mean"] == "– (1 of 2)"
    assert write_report(bench)[1]


def test_the_untouched_model_alone_has_no_learning_curve(tmp_path: Path) -> None:
    """It is scored first; a report of it, or of arms with few images alone, must not fail for want of a curve."""
    few = '[[arm]]\nname = "x @ 10"\ntrain_images = 10\n'
    bench = bench_of(tmp_path, SEEDS + MODEL + SETS + few)
    for cell in bench.cells:
        fill(
            cell,
            val=0.1,
            test=0.2,
            **({"curve": []} if cell.kind == "zero-shot" else {}),
        )
    results, files = write_report(bench)
    assert curves_figure(results, arm_styles(results)) is None
    assert all(file.is_file() for file in files)


def test_the_page_shows_what_was_run_not_what_the_file_says_now(tmp_path: Path) -> None:
    """A long bench ends when its file has been edited for the next one, or moved away."""
    bench = filled(tmp_path)
    (bench.out / "bench.toml").write_text('title = "as it was run"\n', encoding="utf-8")
    bench.path.unlink()
    assert "as it was run" in write_report(bench)[1][-1].read_text(encoding="utf-8")


def test_the_markdown_is_tables(tmp_path: Path) -> None:
    """Every line of a table has as many cells as its head."""
    text = markdown(collect(filled(tmp_path)))
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "| x | mat-residual | lora | tuner's | 0.500 ± 0.141 | +0.250 |" in text
    assert "| arm | mat | tune | lr | score | gain |" in text
    assert re.search(r"^\| arm \|.*\| mean \| gain \|$", text, flags=re.MULTILINE)


def test_the_settings_of_an_arm_are_columns(tmp_path: Path) -> None:
    """A table of a paper is sorted and grouped by them; the name of an arm would have to be taken apart."""
    rates = "lr = [1e-3, 1e-4]\n"
    own = '[[grid]]\nmat = ["mat"]\ntune = ["full"]\n'
    bench = bench_of(tmp_path, rates + MODEL + SETS + own)
    for rate, val in (("0.001", 0.9), ("0.0001", 0.4)):
        for data, best in (("a", "0.001"), ("b", "0.0001"), ("hard", "0.0001")):
            cell = cells_named(bench, f"{data}/sam_vit_b/mat+full/seed-0_lr-{rate}")[0]
            fill(cell, val=val if best == "0.001" else 1 - val, test=0.5)
    results = collect(bench)
    wanted = {"mat": "mat", "tune": "full", "lr": "0.001, 0.0001"}
    for table, lr in (
        (overview(results), "0.001, 0.0001"),
        (data_table(results, bench.settings.data[0]), "0.001"),
    ):
        rows = [dict(zip(table.head, line, strict=True)) for line in table.rows]
        row = next(row for row in rows if row["arm"] == "mat + full")
        assert row.items() >= (wanted | {"lr": lr}).items()
        zero = next(row for row in rows if row["arm"] == "zero-shot")
        assert (zero["mat"], zero["tune"], zero["lr"]) == ("zeroshot", "frozen", "–")
    line = next(
        line
        for line in csv_lines(results, tmp_path)
        if line["arm"] == "mat + full" and line["data"] == "b"
    )
    assert line.items() >= (wanted | {"lr": "0.0001"}).items()


def test_the_latex_is_tables(tmp_path: Path) -> None:
    """Mean and deviation go into a paper as they are; LaTeX stops at a row with too many cells."""
    text = latex(collect(filled(tmp_path)))
    tables = re.findall(r"\\begin{tabular}.*?\\end{tabular}", text, flags=re.DOTALL)
    assert len(tables) == 4
    for table in tables:
        columns = re.findall(r"\\begin{tabular}{(l+r+)}", table)[0]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {row.count("&") for row in rows} == {len(columns) - 1}
        assert r"\toprule" in table
    assert r"\textbf{0.500 $\pm$ 0.141}" in text
    assert r"Score: miou\_object on the test split" in text
    assert "$-$0.150" in text


def test_a_text_is_printed_by_latex_as_it_is() -> None:
    """Names and reasons come from files of others; none is a command, and none ends the table."""
    assert latex_text(r"\input{x} & $y_1^2$ 5% #~") == (
        r"\textbackslash{}input\{x\} \& \$y\_1\textasciicircum{}2\$ 5\% \#\textasciitilde{}"
    )
    assert latex_text("a\n\nb") == "a b"
    assert latex_text("-0.1 [-0.2, +0.3] lr-1") == "$-$0.1 [$-$0.2, +0.3] lr-1"


def test_the_page_stands_alone_and_names_what_is_missing(tmp_path: Path) -> None:
    """It is sent to others without the folder around it."""
    bench = filled(tmp_path)
    _, files = write_report(bench)
    page = files[-1].read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href|srcset)="(?!data:|#)', page)
    assert "random (not begun): everywhere" in page
    assert "0.575 ± 0.177" in page
    plots = {path.name for path in (bench.out / "plots").iterdir()}
    assert plots == {"curves.png"}


def test_an_arm_whose_rates_all_diverged_says_so(tmp_path: Path) -> None:
    """Nothing more will be run, so "begun" would be waited for in vain."""
    rates = "lr = [1e-1, 1.0]\n"
    bench = bench_of(tmp_path, SEEDS + rates + MODEL + SETS + ARMS)
    for cell in cells_named(bench, "a/sam_vit_b/x/seed-0"):
        fill(cell, val=None, diverged="the loss became nan")
    row = next(
        row
        for row in collect(bench).rows
        if row.data.name == "a" and row.arm.name == "x"
    )
    assert (row.state, row.score, row.lr) == ("every rate diverged", None, None)
    cells = ("x", "mat-residual", "lora", *"–––––", "every rate diverged")
    assert cells in data_table(collect(bench), bench.settings.data[0]).rows


@pytest.mark.slow
def test_few_images_are_drawn_where_there_are_several_numbers_of_them(
    tmp_path: Path,
) -> None:
    """One number of images is a point, and no curve."""
    bench = bench_of(tmp_path, MODEL + SETS + "[[grid]]\ntrain_share = [0.1, 1.0]\n")
    for cell in cells_named(bench, "mat-residual+lora"):
        fill(cell, val=0.5, test=0.5, train_samples=4 if "10pct" in cell.name else 40)
    write_report(bench)
    assert (bench.out / "plots" / "few.png").is_file()

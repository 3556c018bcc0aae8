"""Keep what a bench measured in benchmarks/results/BENCH.json, and update its table in benchmarks/results/README.md.

    python benchmarks/publish_results.py mobilesam runs/mobilesam

Of each tested cell its settings and its result are kept; the data's place becomes ../shared/data/NAME. The table is the
one after `<!-- results: BENCH -->`. Its rows are the arms of the bench that have results, in the order of its file;
arms with few images come last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from measuring import parser_of
from simmat_plugin_bench.cells import Cell, read_results, results_of, write_results
from simmat_plugin_bench.grid import expand
from simmat_plugin_bench.settings import read_settings

from simmat.io.files import atomic_write_text
from simmat.plugins.loader import load_plugins

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "results" / "README.md"
SETS = (
    "thermal-udder",
    "nir-crops",
    "fluorescence-nuclei",
    "sar-ships",
    "sonar-objects",
    "multispectral-water",
)


def cells_in(bench: str, folder: Path) -> Sequence[Cell]:
    """Return the cells of benchmarks/BENCH.toml as they lie in a folder."""
    toml = ROOT / "benchmarks" / f"{bench}.toml"
    return expand(read_settings(toml), toml, folder, load_plugins()).cells


def kept_file(bench: str) -> Path:
    """Return the file that keeps the results of a bench."""
    return ROOT / "benchmarks" / "results" / f"{bench}.json"


def keep(bench: str, runs: Path) -> int:
    """Write the tested cells of a bench's folder beside those kept before; returns how many the folder has."""
    target = kept_file(bench)
    kept = read_results(target) if target.is_file() else {}
    found = results_of(
        cell for cell in cells_in(bench, runs) if cell.state() == "tested"
    )
    for entry in found.values():
        entry["result"]["data"]["path"] = (
            f"../shared/data/{entry['settings']['dataset']}"
        )
    write_results(target, kept | found)
    return len(found)


def table(bench: str) -> Iterator[str]:
    """Lines of the table of scores: the mean over the seeds there are, a dash where an arm is not meant to run."""
    tests: dict[tuple[str, str], list[dict[str, Any]]] = {}
    names: dict[str, str] = {}
    kept = read_results(kept_file(bench))
    for cell in cells_in(bench, ROOT / "runs" / bench):
        folder = cell.root.parent.name
        names.setdefault(folder, cell.arm)
        part = tests.setdefault((folder, cell.dataset), [])
        result = kept[cell.name]["result"] if cell.name in kept else {}
        if result.get("test") and result["digest"] == cell.digest():
            part.append(result["test"])
    objects = {
        dataset: found[0]["objects"] for (_, dataset), found in tests.items() if found
    }
    counts = [objects.get(dataset, "none") for dataset in SETS]
    first, *others = [
        f"{name} ({count})" for name, count in zip(SETS, counts, strict=True)
    ]
    head = ["arm", first.replace(")", " objects)"), *others, "mean"]
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for folder, name in sorted(names.items(), key=lambda item: "@" in item[0]):
        found = [tests.get((folder, dataset), []) for dataset in SETS]
        scores = [
            fmean(test["miou_object"] for test in part) if part else None
            for part in found
        ]
        if any(found):
            known = [score for score in scores if score is not None]
            mean = f"{fmean(known):.3f}" if len(known) == len(SETS) else "–"
            missing = [
                "not run" if (folder, dataset) in tests else "–" for dataset in SETS
            ]
            shown = [
                f"{score:.3f}" if score is not None else why
                for score, why in zip(scores, missing, strict=True)
            ]
            yield f"| {' | '.join([f'{name} (`{folder}`)', *shown, mean])} |"


def main() -> None:
    """Keep the results, write the table."""
    parser = parser_of(__doc__)
    parser.add_argument("bench", help="transfer for benchmarks/transfer.toml")
    parser.add_argument("runs", type=Path, help="folder of the bench")
    options = parser.parse_args()
    mark = f"<!-- results: {options.bench} -->"
    text = PAGE.read_text(encoding="utf-8")
    if mark not in text:
        parser.error(f"no table after {mark} in {PAGE}")
    if not (options.runs / "cells").is_dir():
        parser.error(f"no bench has run in {options.runs}")
    if changed := [
        cell.name
        for cell in cells_in(options.bench, options.runs)
        if cell.state() == "changed"
    ]:
        parser.error(
            f"run with other settings than the bench says now: {', '.join(changed)}"
        )
    kept = keep(options.bench, options.runs)
    rows = "".join(f"{line}\n" for line in table(options.bench))
    before, found, after = text.partition(f"{mark}\n\n")
    atomic_write_text(PAGE, before + found + rows + re.sub(r"\A(\|.*\n)+", "", after))
    print(f"{kept} tested cells kept; table of {options.bench} written")


if __name__ == "__main__":
    main()

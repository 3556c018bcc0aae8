"""At which rate a tuned model goes on where more labels are there, beside training anew with all of them.

    python benchmarks/continued.py DIR [--sets thermal-udder sonar-objects nir-crops] [--draws 0 1] [--table]

The cases are those of few_labels.py: a training on 15 labels, then `--init` of its bundle on 30, among them those 15,
in half the steps that a training on 30 takes. The rates are shares of the rate that suits the foundation model. Beside
it stands a training anew on the 30 in all its steps. All keep their last weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import few_labels

from simmat.config import default_steps
from simmat.io.files import atomic_write_json

BEFORE = 15
SHARES = (1.0, 0.3, 0.1)
RATE = 1e-3
"""What suits `lite`, see `simmat foundations list`."""


def last_of(case: few_labels.Case, root: Path, **settings: Any) -> tuple[Path, Any]:
    """Train on all labels of a case; return the bundle and the scores of its last weights."""
    watch, folder = case.train(root, case.truth[:1], **settings)
    last = watch.weights[max(watch.weights)]
    return folder.bundle, case.judge(folder, {"last": last})["last"]


def measure(case: few_labels.Case) -> dict[str, Any]:
    """Train on some labels, go on with all at each rate, and train anew."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        some = replace(case, labels=case.labels[:BEFORE])
        bundle, score = last_of(some, root / "some")
        found = {"before": score}
        for share in SHARES:
            _, found[f"{share:g}"] = last_of(
                case,
                root / f"{share:g}",
                init=bundle,
                lr=RATE * share,
                steps=default_steps(len(case.labels)) // 2,
            )
        _, found["anew"] = last_of(case, root / "anew")
    return found


def main() -> None:
    """Run what the command line says."""
    sets = few_labels.sets()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path)
    parser.add_argument(
        "--sets",
        nargs="+",
        default=["thermal-udder", "sonar-objects", "nir-crops"],
        choices=list(sets),
    )
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    results = []
    for draw in arguments.draws:
        for name in arguments.sets:
            file = arguments.dir / f"{name}-{draw}.json"
            if not file.exists() and not arguments.table:
                case = few_labels.case_of(sets[name], 30, draw)
                atomic_write_json(file, measure(case))
                print(file.name, flush=True)
            if file.exists():
                results.append(json.loads(file.read_text()))
    print("| weights | score | mIoU |\n|---|---|---|")
    for way in results[0]:
        score = fmean(result[way]["score"] for result in results)
        miou = fmean(result[way]["miou"] for result in results)
        print(f"| {way} | {score:.3f} | {miou:.3f} |")


if __name__ == "__main__":
    main()

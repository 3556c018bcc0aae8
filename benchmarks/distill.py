"""What training without labels brings: `simmat distill` beside the untuned model and full supervision.

    python benchmarks/distill.py DIR [--on thermal polarization nir sar pairs] [--seeds 0 1 2] [--split test]
        [--arms embeddings both masks] [--student lite] [--teacher lite] [--teacher-image-size 1024] [--count 120]
        [--shared ../shared/data] [-- OPTION...]

On simulated scenes of `thermal`, `polarization`, `nir` and `sar`: mIoU of one click by masks that are exact, of the
untuned student, of the untuned teacher on the RGB images that it teaches from, of students that learned
from the teacher by each of --arms, and of one that learned from the masks. The share is that of the way from untuned to
supervised. `pairs` are those of rgb-thermal-pairs: agreement with the teacher on held-back pairs; and from there
thermal-udder: without labels, and with ten labelled images from each start.

--split is what is scored, val by default: choose options there, and look at the test split once, at the end. Options
after -- are those of `simmat train`, for every training. With another model as teacher, `--teacher mobilesam`, the
embeddings differ in shape, so take `--arms masks`.

What is done is kept in DIR, each row of its table-SPLIT-ON.md as it is measured, and a call that was stopped can be
repeated; --count is the number of simulated scenes. The teacher looks at the images once for all
seeds and arms. Minutes of a CPU core that a simulated sensor takes, estimated from steps at 192 pixels: 6 for the
teacher `lite` (60 for `mobilesam`), and for each seed 5 for embeddings, 15 for masks, 15 for both, 15 supervised. The
pairs: 11 for the teacher, and for each seed 7, 23, 24, and 7 for each start with ten images.

A better `lite` from photographs alone, with mobilesam's masks, and the score of the result (about 15 seconds an image
for the teacher; 2,000 photographs are 8 hours of a core):

    simmat distill --modality rgb --teacher mobilesam --teacher-modality rgb --data PHOTOGRAPHS --out RUN \
        --foundation lite --mat-option contrast=1 --mat mat-residual --tune full --lr 1e-4 --steps 5000
    simmat eval RUN --data ../shared/data/rgb-regions --regions instances --min-region 100 --split val
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from measuring import DATA, parser_of

import simmat
from simmat.io.files import atomic_write_json, atomic_write_text

SIZE = ("256", "192")
ARMS = ("embeddings", "both", "masks")
"""What a student may learn; the first ones have the teacher keep its embeddings, too."""
Scores = Sequence[dict[str, Any]]


class Bench:
    """Runs commands of `simmat` that are not done yet, and reads their scores."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.root, self.seeds, self.split, self.arms = (
            Path(given.dir),
            given.seeds,
            given.split,
            given.arms,
        )
        self.teacher_name, self.teacher_size = given.teacher, given.teacher_image_size
        self.count, self.file = (
            given.count,
            self.root / f"table-{given.split}-{'-'.join(given.on)}.md",
        )
        self.student = ["--foundation", given.student, "--no-pictures", *given.options]
        size = (
            ["--teacher-image-size", given.teacher_image_size]
            if given.teacher_image_size
            else []
        )
        self.teacher = ["--teacher", given.teacher, *size]
        self.rows: list[list[str]] = []

    def run(self, out: Path, *words: object) -> Path:
        """Run a command that writes the folder `out`; once."""
        done = (
            self.root
            / "done"
            / f"{out.relative_to(self.root).as_posix().replace('/', '__')}.txt"
        )
        if not done.exists():
            begun = (out / "config.toml").exists()
            resumed = (words[0], "--resume", out) if begun else (*words, "--out", out)
            print("simmat", *resumed, flush=True)
            subprocess.run(["simmat", *map(str, resumed)], check=True)
            atomic_write_text(done, " ".join(map(str, words)) + "\n")
        return out

    def train(
        self, out: Path, modality: str, data: Path, seed: int, *more: object
    ) -> Path:
        """Train the student on masks."""
        words = (
            "train",
            "--modality",
            modality,
            "--data",
            data,
            "--seed",
            seed,
            "--heads",
            "prompt",
            *more,
        )
        return self.run(out, *words, *self.student)

    def distill(
        self,
        modality: str,
        data: Path,
        folder: Path,
        *more: object,
    ) -> dict[str, list[Path]]:
        """Teach a student of each arm and seed; what the teacher made for the first one is linked to the others."""
        runs: dict[str, list[Path]] = {}
        first: Path | None = None
        for arm in sorted(self.arms, key=ARMS.index):
            for seed in self.seeds:
                out = folder / f"{arm}-{seed}"
                if first is not None and not out.exists():
                    ignored = shutil.ignore_patterns(".simmat", "matching.json")
                    shutil.copytree(
                        first / "teacher",
                        out / "teacher",
                        symlinks=True,
                        copy_function=os.link,
                        ignore=ignored,
                    )
                words = (
                    "distill",
                    "--modality",
                    modality,
                    "--data",
                    data,
                    "--seed",
                    seed,
                    "--match",
                    arm,
                    *more,
                )
                runs.setdefault(arm, []).append(
                    self.run(out, *words, *self.teacher, *self.student)
                )
                first = first or out
        return runs

    def scores(self, runs: list[Path], data: Path, *more: str) -> Scores:
        """Score runs, and the untuned model beside each."""
        found = []
        for run in runs:
            file = run.with_name(f"{run.name}_{data.name}_{self.split}.json")
            if not file.exists():
                words = [
                    "simmat",
                    "eval",
                    str(run),
                    "--data",
                    str(data),
                    "--split",
                    self.split,
                    *more,
                    "--json",
                ]
                answer = subprocess.run(
                    words, check=True, stdout=subprocess.PIPE
                ).stdout
                atomic_write_json(file, json.loads(answer))
            found.append(json.loads(file.read_text()))
        return found

    def teacher_score(self, data: Path, folder: Path) -> float:
        """Return the score of the untuned teacher on the RGB images."""
        file = folder / f"teacher_{self.split}.json"
        if not file.exists():
            model = simmat.load(
                foundation=self.teacher_name,
                modality="rgb",
                image_size=self.teacher_size,
            )
            scores = simmat.evaluate(model, data, split=self.split, zero_shot=True)
            atomic_write_json(file, {"miou_object": scores["zero_shot"]["miou_object"]})
        return float(json.loads(file.read_text())["miou_object"])

    def row(
        self, name: str, start: str, of: str, scores: Scores, supervised: Scores = ()
    ) -> None:
        """Add a row: the untuned model, the tuned ones, those with labels, and the share of the way."""
        untuned = fmean(one["zero_shot"]["miou_object"] for one in scores)
        tuned, full = (
            [one["tuned"]["miou_object"] for one in each]
            for each in (scores, supervised)
        )
        way = fmean(full) - untuned if full else 0.0
        share = f"{(fmean(tuned) - untuned) / way:.0%}" if way > 0 else ""
        self.rows.append(
            [
                name,
                start,
                f"{untuned:.3f}",
                of,
                mean_and_std(tuned),
                mean_and_std(full),
                share,
            ]
        )
        print("|", " | ".join(self.rows[-1]), "|", flush=True)
        atomic_write_text(self.file, self.table())

    def simulated(self, sensor: str) -> Path:
        """Make the scenes of a sensor, which have exact masks."""
        simulate = (
            "data",
            "simulate",
            "--modality",
            f"rgb+{sensor}",
            "--count",
            self.count,
            "--seed",
            0,
        )
        return self.run(self.root / sensor / "scenes", *simulate, "--size", *SIZE)

    def scenes(self, sensor: str) -> None:
        """Compare on simulated scenes."""
        data, folder = self.simulated(sensor), self.root / sensor
        students = self.distill(sensor, data, folder, "--check-alignment")
        full = [
            self.train(folder / f"supervised-{seed}", sensor, data, seed)
            for seed in self.seeds
        ]
        taught, supervised = (
            f"{self.teacher_score(data, folder):.3f}",
            self.scores(full, data),
        )
        for arm, runs in students.items():
            self.row(
                f"simulated {sensor}", arm, taught, self.scores(runs, data), supervised
            )

    def pairs(self, shared: Path) -> None:
        """Compare on real pairs, and on another thermal camera with few labels."""
        folder, udder, classes = (
            self.root / "pairs",
            shared / "thermal-udder",
            ("--regions", "classes"),
        )
        ten = (*classes, "--train-images", 10)
        plain = [
            self.train(folder / f"plain-10-{seed}", "thermal", udder, seed, *ten)
            for seed in self.seeds
        ]
        students = self.distill(
            "thermal", shared / "rgb-thermal-pairs", folder, "--check-alignment"
        )
        for arm, runs in students.items():
            self.row(
                "rgb-thermal-pairs, agreement",
                arm,
                "",
                self.scores(runs, runs[0] / "teacher"),
            )
            self.row(
                "thermal-udder, no labels", arm, "", self.scores(runs, udder, *classes)
            )
            started = [
                self.train(
                    folder / f"{arm}-10-{seed}",
                    "thermal",
                    udder,
                    seed,
                    *ten,
                    "--init",
                    start,
                )
                for seed, start in zip(self.seeds, runs, strict=True)
            ]
            few = (
                self.scores(started, udder, *classes),
                self.scores(plain, udder, *classes),
            )
            self.row(
                "thermal-udder, 10 labelled images (with labels: plain start)",
                arm,
                "",
                *few,
            )

    def table(self) -> str:
        """Return all rows as a table."""
        head = [
            "",
            "learned from",
            "untuned",
            "teacher on RGB",
            "distilled",
            "with labels",
            "share of the way",
        ]
        return "".join(
            f"| {' | '.join(row)} |\n"
            for row in (head, ["---"] * len(head), *self.rows)
        )


def mean_and_std(values: list[float]) -> str:
    """Return "0.512 ± 0.010" of several values; "" of none."""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}" if values else ""


def main() -> None:
    """Run what the command line says, and write its table."""
    parser = parser_of(__doc__)
    parser.add_argument("dir")
    parser.add_argument(
        "--on", nargs="+", default=["thermal", "polarization", "nir", "sar", "pairs"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--student", default="lite")
    parser.add_argument("--teacher", default="lite")
    parser.add_argument("--teacher-image-size", type=int)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--shared", type=Path, default=DATA)
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    given.options = words[cut + 1 :]
    bench = Bench(given)
    for name in given.on:
        if name == "pairs":
            bench.pairs(given.shared)
        else:
            bench.scenes(name)
    print(bench.table())


if __name__ == "__main__":
    main()

"""What training without labels brings: `simmat distill` beside the untuned model and full supervision.

    python benchmarks/distill.py DIR [--on thermal polarization nir sar pairs] [--seeds 0 1 2] [--split test]
        [--student lite] [--teacher mobilesam] [--teacher-image-size 1024] [--shared ../shared/data] [-- OPTION...]

On simulated scenes of `thermal`, `polarization`, `nir` and `sar`: mIoU of one click by masks that are exact, of the
untuned student, of one that learned from the teacher's masks of the RGB images, and of one that learned from the masks.
`pairs` are those of rgb-thermal-pairs: agreement with the teacher on held-back pairs; and from there thermal-udder,
untuned, by the distilled student, and with ten labelled images from either start. --split is what is scored, val by
default: the test split is for the last look. Options after -- are those of `simmat train`, for every training.

What is done is kept in DIR, and a call that was stopped can be repeated. The teacher's masks are made once for all
seeds. On two CPU cores a simulated sensor takes about two hours with three seeds, and the pairs about three.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from simmat.io.files import atomic_write_json, atomic_write_text

SCENES, SIZE = "120", ("256", "192")
Scores = list[dict[str, Any]]


class Bench:
    """Runs commands of `simmat` that are not done yet, and reads their scores."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.root, self.seeds, self.split = Path(given.dir), given.seeds, given.split
        self.student = ["--foundation", given.student, "--no-pictures", *given.options]
        self.teacher = ["--teacher", given.teacher, "--teacher-image-size", str(given.teacher_image_size)]
        self.rows: list[list[str]] = []

    def run(self, out: Path, *words: object) -> Path:
        """Run a command that writes the folder `out`; once."""
        done = self.root / "done" / f"{out.relative_to(self.root).as_posix().replace('/', '__')}.txt"
        if not done.exists():
            resumed = ("train", "--resume", out) if (out / "config.toml").exists() else (*words, "--out", out)
            print("simmat", *resumed, flush=True)
            subprocess.run(["simmat", *map(str, resumed)], check=True)
            atomic_write_text(done, " ".join(map(str, words)) + "\n")
        return out

    def train(self, out: Path, modality: str, data: Path, seed: int, *more: object) -> Path:
        """Train the student on masks."""
        words = ("train", "--modality", modality, "--data", data, "--seed", seed, *more, *self.student)
        return self.run(out, *words)

    def distill(self, modality: str, data: Path, folder: Path) -> list[Path]:
        """Teach a student of each seed; the first one has the teacher's masks."""
        first, *others = self.seeds
        words = ("distill", "--modality", modality, "--data", data, "--seed", first, "--check-alignment")
        runs = [self.run(folder / f"distilled-{first}", *words, *self.teacher, *self.student)]
        masks = runs[0] / "teacher"
        network = ("--mat", "mat-residual", "--tune", "lora")  # as `simmat distill` chooses for the first
        return runs + [self.train(folder / f"distilled-{seed}", modality, masks, seed, *network) for seed in others]

    def scores(self, runs: list[Path], data: Path, *more: str) -> Scores:
        """Score runs, and the untuned model beside each."""
        found = []
        for run in runs:
            file = run.with_name(f"{run.name}_{data.name}_{self.split}.json")
            if not file.exists():
                words = ["simmat", "eval", str(run), "--data", str(data), "--split", self.split, *more, "--json"]
                answer = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout
                atomic_write_json(file, json.loads(answer))
            found.append(json.loads(file.read_text()))
        return found

    def row(self, name: str, *scores: Scores, share: bool = False) -> None:
        """Add a row: the untuned model by the first scores, then the tuned ones, and the share of the way."""
        untuned = fmean(one["zero_shot"]["miou_object"] for one in scores[0])
        tuned = [[one["tuned"]["miou_object"] for one in each] for each in scores]
        cells = [f"{untuned:.3f}", *map(mean_and_std, tuned)] + [""] * (2 - len(tuned))
        if share:
            start, end = fmean(tuned[0]) - untuned, fmean(tuned[1]) - untuned
            cells.append(f"{start / end:.0%}" if end > 0 else "-")
        self.rows.append([name, *cells, *[""] * (not share)])
        print("|", " | ".join(self.rows[-1]), "|", flush=True)

    def scenes(self, sensor: str) -> None:
        """Compare on simulated scenes, which have exact masks."""
        folder = self.root / sensor
        simulate = ("data", "simulate", "--modality", f"rgb+{sensor}", "--count", SCENES, "--seed", 0, "--size", *SIZE)
        data = self.run(folder / "scenes", *simulate)
        distilled = self.distill(sensor, data, folder)
        supervised = [
            self.train(folder / f"supervised-{seed}", sensor, data, seed, "--heads", "prompt") for seed in self.seeds
        ]
        self.row(f"simulated {sensor}", self.scores(distilled, data), self.scores(supervised, data), share=True)

    def pairs(self, shared: Path) -> None:
        """Compare on real pairs, and on another thermal camera with few labels."""
        folder, udder, classes = self.root / "pairs", shared / "thermal-udder", ("--regions", "classes")
        distilled = self.distill("thermal", shared / "rgb-thermal-pairs", folder)
        self.row("rgb-thermal-pairs, agreement", self.scores(distilled, distilled[0] / "teacher"))
        self.row("thermal-udder, no labels", self.scores(distilled, udder, *classes))
        starts: dict[str, list[Path]] = {"plain": [], "distilled": []}
        for seed, start in zip(self.seeds, distilled, strict=True):
            ten = (*classes, "--train-images", 10, "--heads", "prompt")
            starts["plain"].append(self.train(folder / f"plain-10-{seed}", "thermal", udder, seed, *ten))
            init = ("--init", start)
            starts["distilled"].append(self.train(folder / f"distilled-10-{seed}", "thermal", udder, seed, *ten, *init))
        scores = [self.scores(starts[name], udder, *classes) for name in ("distilled", "plain")]
        self.row("thermal-udder, 10 labelled images", *scores)

    def table(self) -> str:
        """Return all rows as a table."""
        head = ["", "untuned", "distilled", "with labels, plain start", "share of the way"]
        return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *self.rows))


def mean_and_std(values: list[float]) -> str:
    """Return "0.512 ± 0.010" of several values."""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def main() -> None:
    """Run what the command line says, and write DIR/table.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--on", nargs="+", default=["thermal", "polarization", "nir", "sar", "pairs"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--student", default="lite")
    parser.add_argument("--teacher", default="mobilesam")
    parser.add_argument("--teacher-image-size", type=int, default=1024)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
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
    atomic_write_text(bench.root / "table.md", bench.table())
    print(bench.table())


if __name__ == "__main__":
    main()

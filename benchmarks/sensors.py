"""What one training on several sensors costs and brings: `sensors.toml` beside a model for each sensor.

    python benchmarks/sensors.py DIR [--config sensors.toml] [--seeds 0 1 2] [--split test]
        [--new thermal-udder sar-ships] [-- OPTION...]

First mIoU of one click and trained parameters: a model for each sensor, and one training on all of them. Then for each
sensor of --new a training on the others, to which it comes with ten images: a separate model, the transfer layer alone
(--new-sensor), and from there everything tuned (--init). --split is what is scored, val by default: the test split is
for the last look. Options after -- are those of `simmat train`, for every training.

What is done is kept in DIR, and a call that was stopped can be repeated; DIR/table-SPLIT.md is written after each
seed. On two CPU cores a seed takes about an hour and a half, and half an hour more for each sensor of --new.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from safetensors.torch import load_file

from simmat.config import TrainConfig, dump_configs, dump_toml, load_configs
from simmat.io.files import atomic_write_json, atomic_write_text

FEW = 10


class Bench:
    """Trains and scores what is not done yet."""

    def __init__(self, root: Path, split: str, options: list[str]) -> None:
        self.root, self.split, self.options = root.absolute(), split, options

    def train(self, name: str, settings: str, *more: object) -> Path:
        """Train with the settings of a file, or resume; once."""
        out, done = self.root / name, self.root / "done" / name
        if not done.exists():
            file = self.root / "settings" / f"{name}.toml"
            atomic_write_text(file, settings)
            begun = (out / "config.toml").exists()
            words = (
                ["--resume", out]
                if begun
                else ["--config", file, "--out", out, *more, *self.options]
            )
            print("simmat train", *words, flush=True)
            subprocess.run(["simmat", "train", *map(str, words)], check=True)
            atomic_write_text(done, "")
        return out

    def score(self, run: Path, config: TrainConfig) -> float:
        """Return the mIoU of one click of a sensor's run."""
        file = (
            self.root
            / "scores"
            / f"{run.relative_to(self.root).as_posix().replace('/', '_')}_{self.split}.json"
        )
        if not file.exists():
            words = [
                "simmat",
                "eval",
                str(run),
                "--data",
                str(config.data),
                "--split",
                self.split,
                "--json",
            ]
            card = {"--regions": config.regions, "--min-region": config.min_region}
            words += [
                str(word)
                for pair in card.items()
                if pair[1] is not None
                for word in pair
            ]
            atomic_write_json(
                file,
                json.loads(
                    subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout
                ),
            )
        return float(json.loads(file.read_text())["tuned"]["miou_object"])


def parameters(run: Path) -> int:
    """Return how many trained parameters the bundle of a run has."""
    return sum(
        tensor.numel() for tensor in load_file(run / "bundle.safetensors").values()
    )


def table(
    rows: dict[str, list[list[float]]],
    few: dict[str, list[list[float]]],
    trained: float,
) -> str:
    """Return the means over seeds as a table.

    Args:
        rows: sensor -> scores of the separate models, and of the one training.
        few: sensor that comes later -> scores with a few images: separate, transfer layer alone, then everything.
        trained: parameters of the one training as a share of those of all separate models.
    """
    lines = ["| | separate models | one training |", "|---|---|---|"]
    lines += [
        f"| {name} | {fmean(alone):.3f} | {fmean(joint):.3f} |"
        for name, (alone, joint) in rows.items()
    ]
    means = [
        fmean(value for row in rows.values() for value in row[column])
        for column in (0, 1)
    ]
    lines += [
        f"| mean | {means[0]:.3f} | {means[1]:.3f} |",
        f"| trained parameters | 100 % | {trained:.0%} |",
        "",
    ]
    lines += [
        f"| {FEW} images | separate | transfer layer alone | then everything |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {' | '.join(f'{fmean(scores):.3f}' for scores in arms)} |"
        for name, arms in few.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what the command line says, and write its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path)
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).with_name("sensors.toml")
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--new", nargs="*", default=["thermal-udder", "sar-ships"])
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    bench = Bench(given.dir, given.split, words[cut + 1 :])
    sensors = load_configs(given.config, {"out": bench.root})
    if unknown := set(given.new) - sensors.keys():
        parser.error(
            f"--new: {given.config} has no {', '.join(sorted(unknown))}, but {', '.join(sensors)}"
        )
    rows = {name: [list[float](), list[float]()] for name in sensors}
    few = {name: [list[float]() for _ in range(3)] for name in given.new}
    for seed in given.seeds:
        settings = {
            name: config.model_copy(update={"seed": seed})
            for name, config in sensors.items()
        }
        together = bench.train(f"together-{seed}", dump_configs(settings))
        runs = {
            name: bench.train(f"{name}-{seed}", dump_toml(settings[name]))
            for name in sensors
        }
        for name, config in settings.items():
            for scores, run in zip(
                rows[name], (runs[name], together / name), strict=True
            ):
                scores.append(bench.score(run, config))
        trained = parameters(together) / sum(map(parameters, runs.values()))
        for name in given.new:
            others = {
                other: config for other, config in settings.items() if other != name
            }
            start = bench.train(f"without-{name}-{seed}", dump_configs(others))
            ten = dump_toml(settings[name].model_copy(update={"train_images": FEW}))
            separate = bench.train(f"{name}-{FEW}-{seed}", ten)
            layer = (
                bench.train(
                    f"{name}-{FEW}-layer-{seed}",
                    ten,
                    "--init",
                    start,
                    "--new-sensor",
                    name,
                )
                / name
            )
            tuned = bench.train(f"{name}-{FEW}-tuned-{seed}", ten, "--init", layer)
            for scores, run in zip(few[name], (separate, layer, tuned), strict=True):
                scores.append(bench.score(run, settings[name]))
        text = table(rows, few, trained)
        atomic_write_text(bench.root / f"table-{bench.split}.md", text)
        print(
            f"{text}\nmeans of {len(next(iter(rows.values()))[0])} of {len(given.seeds)} seeds",
            flush=True,
        )


if __name__ == "__main__":
    main()

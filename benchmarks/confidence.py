"""Measure calibration and `--min-score auto` on a split, for every bundle below a folder.

    python benchmarks/confidence.py runs/confidence [--split test]

For each data set and kind of score: ECE of the network's own and of calibrated scores, means over the bundles with
their range; and of the objects that `--min-score auto` keeps at 10 %, how many are right. Boxes are scored, too.

What is measured of a bundle is kept in its run's folder, so a call that was stopped can be repeated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from measuring import parser_of

from simmat.bundle import load_bundle
from simmat.config import TrainConfig, load_config
from simmat.evaluation import ONE_CLICK, EvalRequest, evaluate_bundle
from simmat.io.files import atomic_write_json
from simmat.io.reading import read_json
from simmat.plugins.loader import load_plugins

FIGURES = ("ece_uncalibrated", "ece", "auto_kept", "auto_right")


def confidence_of(run: Path, config: TrainConfig, split: str) -> dict[str, Any]:
    """Return kind of score -> figures of the bundle of a run."""
    bundle = load_bundle(run, load_plugins())
    scores, _ = evaluate_bundle(
        bundle,
        config.data,
        split,
        overrides=config.card_overrides(),
        request=EvalRequest(
            protocol=replace(ONE_CLICK, boxes=True),
            everything=bundle.spec.dense is not None,
            semantic=bundle.spec.dense is not None,
        ),
    )
    return dict(scores.summary()["confidence"])


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, help="folder with runs")
    parser.add_argument("--split", default="test", help="val or test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[dict[str, float | None]]] = defaultdict(list)
    for run in sorted(
        file.parent for file in options.folder.rglob("bundle.safetensors")
    ):
        config = load_config(run / "config.toml", {"out": run})
        kept = run / f"confidence_{options.split}.json"
        if not kept.exists():
            print(f"scoring {run}", flush=True)
            atomic_write_json(kept, confidence_of(run, config, options.split))
        for kind, block in read_json(kept).items():
            found[config.data.name, kind].append(block)
    print(
        f"{'set':<20} {'score':<18} {'number':>8}  ECE before, after; kept, right (least to most)"
    )
    for (name, kind), blocks in found.items():
        texts = []
        for figure in FIGURES:
            values = [
                value for block in blocks if (value := block.get(figure)) is not None
            ]
            texts.append(
                f"{fmean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
                if values
                else "-"
            )
        print(
            f"{name:<20} {kind:<18} {blocks[0]['objects']:>8}  {'  '.join(texts)}",
            flush=True,
        )


if __name__ == "__main__":
    main()

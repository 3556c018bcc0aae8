"""Measure a second click on the same image as a part of the first, which encodes the image.

    python benchmarks/second_click.py [--runs 5] [--threads 1] [--json FILE] [MODEL[:SIZE] ...]

By default `lite` (simmat-plugin-lite) and `sam_vit_b`, both at their own input size. Weights are random: they change no
time. Times are CPU seconds, which count threads that wait; so with several threads there are also seconds by the clock,
for which the machine must be idle. The floor is what the multiplications of the second click take at the rate of a
large matrix product.
"""

from __future__ import annotations

import argparse

# This imports simmat, which sets how threads wait; torch reads that when it is loaded.
from measuring import Line, add_json_option, in_turn, least_seconds, report, time_lines

# isort: split
import numpy as np
import torch

from simmat.model import Parts
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor, ZeroShotPredictor


def predictor_of(registry: Registry, name: str, size: int | None) -> Predictor:
    """Return an untuned model with random weights on `gray`."""
    spec = registry.foundation(name)
    parts = Parts(spec, registry.transfer_layer("zeroshot"), registry.tuner("frozen"), weights=None)
    return ZeroShotPredictor(parts, registry.modality("gray"), size or spec.image_size, torch.device("cpu"))


def measure(name: str, predictor: Predictor, runs: int, threads: int) -> list[Line]:
    """Time a first click, with the encoding before it, and a second one."""
    side = predictor.pipeline.size
    image = np.random.default_rng(0).random((1, side, side), np.float32)

    def second() -> None:
        predictor.predict(points=[(side // 3, side // 2)])

    def first() -> None:
        predictor.set_image(image)
        predictor.predict(points=[(side // 2, side // 2)])

    found = in_turn({"first": first, "second": second}, runs)
    path = f"second click, {name} at {side} px"
    return time_lines(path, found["second"], "first click", found["first"], least_seconds(second), threads=threads)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["lite", "sam_vit_b"], metavar="MODEL[:SIZE]")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    registry = load_plugins()
    lines: list[Line] = []
    for model in options.models:
        name, _, size = model.partition(":")
        predictor = predictor_of(registry, name, int(size) if size else None)
        lines += measure(name, predictor, options.runs, options.threads)
    report(lines, options.json)


if __name__ == "__main__":
    main()

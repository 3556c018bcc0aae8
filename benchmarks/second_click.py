"""Measure a second click on the same image as a part of the first, which encodes the image.

    python benchmarks/second_click.py [--runs 5] [MODEL[:SIZE] ...]

By default `lite` (simmat-plugin-lite) and `sam_vit_b`, both at their own input size. Weights are random: they change no
time.
"""

from __future__ import annotations

import argparse
import time

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


def best_of(predictor: Predictor, runs: int) -> tuple[float, float]:
    """Return the shortest seconds of a first click, with the encoding before it, and of a second one."""
    side = predictor.pipeline.size
    image = np.random.default_rng(0).random((1, side, side), np.float32)
    best = [float("inf"), float("inf")]
    for _ in range(runs):
        start = time.perf_counter()
        predictor.set_image(image)
        predictor.predict(points=[(side // 2, side // 2)])
        middle = time.perf_counter()
        predictor.predict(points=[(side // 3, side // 2)])
        end = time.perf_counter()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
    return best[0], best[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["lite", "sam_vit_b"], metavar="MODEL[:SIZE]")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    registry = load_plugins()
    print(f"{'model':<16} {'size':>5} {'first click':>12} {'second':>10} {'part':>7}   best of {options.runs}")
    for model in options.models:
        name, _, size = model.partition(":")
        predictor = predictor_of(registry, name, int(size) if size else None)
        first, second = best_of(predictor, options.runs)
        print(f"{name:<16} {predictor.pipeline.size:>5} {first:>11.3f}s {second:>9.3f}s 1/{first / second:<5.1f}")


if __name__ == "__main__":
    main()

"""Measure a second click on the same image as a part of the first, which encodes the image.

    python benchmarks/second_click.py [--runs 5] [--threads 1] [--json FILE] [MODEL[:SIZE][@WIDTHxHEIGHT] ...]

By default `lite` (simmat-plugin-lite) and `sam_vit_b`, both at their own input size, and `lite` on images of three more
sizes, which are cut into windows; the image is a disc on noise, and the second click is on it as well. Weights are
random where the package has none: they change no time, except where a mask reaches the border of a window. Times are
CPU seconds, which count threads that wait; so with several threads there are also seconds by the clock, for which the
machine must be idle. The floor is what the multiplications of the second click take at the rate of a
large matrix product.
"""

from __future__ import annotations

# This imports simmat, which sets how threads wait; torch reads that when it is loaded.
from measuring import Line, in_turn, least_seconds, parser_of, report, time_lines

# isort: split
import numpy as np
import torch

from simmat.assemble import Parts
from simmat.io.weights import find_weights
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor, ZeroShotPredictor

_MODELS = ["lite", "lite@640x480", "lite@1280x1024", "lite@4000x3000", "sam_vit_b"]


def predictor_of(registry: Registry, name: str, size: int | None) -> Predictor:
    """Return an untuned model on `gray`."""
    spec = registry.foundation(name)
    weights = (
        find_weights(spec, None)
        if spec.weights is not None and spec.weights.path is not None
        else None
    )
    parts = Parts(
        spec, registry.transfer_layer("zeroshot"), registry.tuner("frozen"), weights
    )
    return ZeroShotPredictor(
        parts, registry.modality("gray"), size or spec.image_size, torch.device("cpu")
    )


def measure(
    name: str, predictor: Predictor, size_wh: tuple[int, int], runs: int, threads: int
) -> list[Line]:
    """Time a first click, with the encoding before it, and a second one."""
    width, height = size_wh
    image = np.random.default_rng(0).integers(0, 64, (1, height, width), np.uint8)
    y, x = np.ogrid[:height, :width]
    image[0, (y - height // 2) ** 2 + (x - width // 2) ** 2 < 40**2] += 128

    def second() -> None:
        predictor.predict(points=[(width // 2 - 25, height // 2 + 10)])

    def first() -> None:
        predictor.set_image(image)
        predictor.predict(points=[(width // 2, height // 2)])

    found = in_turn({"first": first, "second": second}, runs)
    path = f"second click, {name} at {predictor.pipeline.size} px, image of {width}x{height}"
    return time_lines(
        path,
        found["second"],
        "first click",
        found["first"],
        least_seconds(second),
        threads=threads,
    )


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument(
        "models", nargs="*", default=_MODELS, metavar="MODEL[:SIZE][@WIDTHxHEIGHT]"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    registry = load_plugins()
    lines: list[Line] = []
    for model in options.models:
        name, _, image = model.partition("@")
        name, _, size = name.partition(":")
        predictor = predictor_of(registry, name, int(size) if size else None)
        width, height = (
            map(int, image.split("x")) if image else (predictor.pipeline.size,) * 2
        )
        lines += measure(
            name, predictor, (width, height), options.runs, options.threads
        )
    report(lines, options.json)


if __name__ == "__main__":
    main()

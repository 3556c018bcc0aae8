"""Measure the CPU time to encode an image and to answer a click: torch, onnxruntime, onnxruntime with 8-bit integers.

    python benchmarks/onnx_latency.py [--models lite,sam_vit_b] [--rounds 5] [--threads 1] [--openvino]

Weights are random: times do not depend on them. A time is that of the process's CPU, which changes little with what
else runs on the machine; with one thread it is what one waits for on an idle machine. Arms take turns. The ratio is
that of the medians to torch's, below 1 means faster; the spread is the range of the middle half. A click is one prompt
with its mask at the size of the image.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import simmat_runtime
import torch
from simmat_plugin_export.export import export
from simmat_plugin_export.precision import quantized_dynamic, quantized_static
from simmat_runtime.manifest import ENCODER

from simmat.bundle import load_bundle, trained_tensors, write_bundle
from simmat.data.card import DataCard
from simmat.model import assemble, find_parts
from simmat.model_spec import ModelSpec
from simmat.plugins.loader import load_plugins
from simmat.predictor import Predictor
from simmat.sensors.normalize import Statistics
from simmat.types import Channel

GRAY = Channel("gray", "counts", "count")
CLICKS = ((True, False, False),)


def make_bundle(file: Path, foundation: str, size: int) -> Predictor:
    """Write a bundle of random weights, and return its predictor."""
    registry = load_plugins()
    spec = ModelSpec(
        modality="gray",
        sensor_channels=(GRAY,),
        channels=(GRAY.with_statistics(128, 50),),
        statistics=Statistics((128.0,), (50.0,), ((1.0,),), (1,)),
        zero_shot=((1.0,),) * 3,
        foundation=foundation,
        seed=0,
        image_size=size,
        mat="mat-residual",
        tune="lora",
        card=DataCard(regions="instances"),
    )
    write_bundle(
        file, spec, trained_tensors(assemble(spec, find_parts(spec, registry, None)))
    )
    return Predictor.of_bundle(load_bundle(file, registry))


def picture(size: int, seed: int) -> np.ndarray:
    """Return (1, size, size) counts."""
    return (
        np.random.default_rng(seed)
        .normal(128, 50, (1, size, size))
        .clip(0, 255)
        .astype(np.float32)
    )


class OpenVino:
    """An exported model in OpenVINO, which reads the same files; only the encoder is timed."""

    def __init__(self, folder: Path, threads: int) -> None:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._encoder = openvino.Core().compile_model(folder / ENCODER, "CPU", settings)

    def set_image(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Encode an image; return the levels by name."""
        found = self._encoder({"image": image[None]})
        return {output.any_name: value for output, value in found.items()}


def int8(source: Path, out: Path, convert: Callable[..., onnx.ModelProto]) -> Path:
    """Copy an exported model with the network of its encoder in 8 bits, as `simmat export --quantize` writes it."""
    shutil.copytree(source, out)
    model = onnx.load(source / ENCODER)
    kept = [node.name for node in model.graph.node if node.name.startswith("prepare/")]
    onnx.save(convert(model, kept=kept), out / ENCODER)
    return out


def measure(
    foundation: str, size: int, rounds: int, threads: int, openvino: bool
) -> None:
    """Export a model, and print its table."""
    with tempfile.TemporaryDirectory() as place:
        predictor = make_bundle(Path(place) / "bundle.safetensors", foundation, size)
        assert predictor.bundle is not None
        whole = Path(place) / "fp32"
        export(predictor.bundle, whole, kinds=CLICKS)
        calibrated = partial(
            quantized_static, feeds=[{"image": picture(size, 1)[None]}]
        )
        folders = {
            "onnxruntime": whole,
            "int8 dynamic": int8(whole, Path(place) / "dynamic", quantized_dynamic),
            "int8 static": int8(whole, Path(place) / "static", calibrated),
        }
        print_table(foundation, predictor, folders, rounds, threads, openvino)


def print_table(
    name: str,
    predictor: Predictor,
    folders: Mapping[str, Path],
    rounds: int,
    threads: int,
    openvino: bool,
) -> None:
    """Time a bundle and what was exported of it, and print the table."""
    size = predictor.pipeline.size
    image = picture(size, 3)
    arms: dict[str, Any] = {"torch": predictor}
    arms |= {
        arm: simmat_runtime.load(folder, threads=threads, check=False)
        for arm, folder in folders.items()
    }
    if openvino:
        arms["OpenVINO"] = OpenVino(folders["onnxruntime"], threads)
        arms["onnxruntime"].set_image(image)
        ours, theirs = (
            arms["onnxruntime"].encoded.levels,
            arms["OpenVINO"].set_image(image),
        )
        worst = max(float(np.abs(ours[level] - theirs[level]).max()) for level in ours)
        print(
            f"largest difference of OpenVINO's encoder to onnxruntime's: {worst:.1g}",
            flush=True,
        )
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for arm, model in arms.items():
            for what, given in (
                ("set_image", image),
                ("predict", [(size / 2, size / 2)]),
            ):
                if hasattr(model, what):
                    seconds = timed(partial(getattr(model, what), given))
                    if turn:  # the first warms up
                        found.setdefault((what, arm), []).append(seconds)
    sizes = {
        arm: f"{(folder / ENCODER).stat().st_size / 2**20:.1f} MiB"
        for arm, folder in folders.items()
    }
    print(
        f"\n{name}, {size} px, {threads} thread{'s' if threads > 1 else ''}, {rounds} rounds, CPU seconds\n"
    )
    print(f"| | `{ENCODER}` | image | click |\n|---|---|---|---|")
    for arm in arms:
        cells = [
            described(found.get((what, arm), []), found[what, "torch"])
            for what in ("set_image", "predict")
        ]
        print(f"| {arm} | {sizes.get(arm, '')} | {' | '.join(cells)} |", flush=True)


def described(times: list[float], base: list[float]) -> str:
    """Return median, middle half and ratio; "" for no times."""
    if not times:
        return ""
    times = sorted(times)
    low, median, high = (
        times[len(times) // 4],
        statistics.median(times),
        times[-1 - len(times) // 4],
    )
    return f"{median:.3f} ({low:.3f} to {high:.3f}), {median / statistics.median(base):.2f}x"


def timed(call: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Measure the models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--models",
        default="lite,sam_vit_b",
        help="with commas; NAME:SIZE for another size",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--openvino", action="store_true", help="an arm more; needs openvino"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    registry = load_plugins()
    for name in given.models.split(","):
        model, _, size = name.partition(":")
        pixels = int(size or registry.foundation(model).image_size)
        measure(model, pixels, given.rounds, given.threads, given.openvino)


if __name__ == "__main__":
    main()

"""Measure the time to encode an image and to answer a click: torch, onnxruntime, onnxruntime with 8-bit integers.

    python benchmarks/onnx_latency.py [--models lite,sam_vit_b] [--rounds 5] [--threads 2]

Weights are random: times do not depend on them. Arms take turns, so that a machine that others use slows all alike. The
ratio is that of the medians to torch's, below 1 means faster; the spread is the range of the middle half.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simmat_runtime
import torch
from simmat_plugin_export.export import export

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


def make_bundle(folder: Path, foundation: str, size: int) -> Predictor:
    """Write a bundle of random weights, and return its predictor."""
    registry = load_plugins()
    spec = ModelSpec(
        modality="gray",
        sensor_channels=(GRAY,),
        channels=(GRAY.with_statistics(0, 1),),
        statistics=Statistics((0.0,), (1.0,), ((1.0,),), (1,)),
        zero_shot=((1.0,),) * 3,
        foundation=foundation,
        seed=0,
        image_size=size,
        mat="mat-residual",
        tune="lora",
        card=DataCard(regions="instances"),
    )
    write_bundle(folder, spec, trained_tensors(assemble(spec, find_parts(spec, registry, None))))
    return Predictor.of_bundle(load_bundle(folder, registry))


def measure(foundation: str, size: int, rounds: int, threads: int) -> None:
    """Print the table of one model."""
    with tempfile.TemporaryDirectory() as place:
        predictor = make_bundle(Path(place) / "bundle", foundation, size)
        assert predictor.bundle is not None
        arms: dict[str, Predictor | simmat_runtime.Model] = {"torch": predictor}
        for name, precision in (("onnxruntime", "fp32"), ("int8-dynamic", "int8-dynamic")):
            out = Path(place) / name
            export(predictor.bundle, out, precision=precision, kinds=CLICKS)  # type: ignore[arg-type]
            arms[name] = simmat_runtime.load(out, threads=threads)
        image = np.random.default_rng(0).standard_normal((1, size, size)).astype(np.float32)
        found: dict[tuple[str, str], list[float]] = {}
        for turn in range(rounds + 1):
            for name, arm in arms.items():
                for what, call in (("encode", arm.set_image), ("click", arm.predict)):
                    given = image if what == "encode" else [(size / 2, size / 2)]
                    seconds = timed(lambda call=call, given=given: call(given))  # type: ignore[misc]
                    if turn:  # the first warms up
                        found.setdefault((what, name), []).append(seconds)
    print(f"\n{foundation}, {size} px, {threads} threads, {rounds} rounds")
    for what in ("encode", "click"):
        base = statistics.median(found[what, "torch"])
        for name in arms:
            times = sorted(found[what, name])
            low, high = times[len(times) // 4], times[-1 - len(times) // 4]
            median = statistics.median(times)
            print(f"  {what:7} {name:13} {median:8.3f} s ({low:.3f} to {high:.3f})   {median / base:5.2f}", flush=True)


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure the models."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", default="lite,sam_vit_b", help="with commas; NAME:SIZE for another size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    registry = load_plugins()
    for name in given.models.split(","):
        model, _, size = name.partition(":")
        measure(model, int(size or registry.foundation(model).image_size), given.rounds, given.threads)


if __name__ == "__main__":
    main()

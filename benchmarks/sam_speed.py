"""Measure Segment Anything ViT-B at 1024 px against the package's own code, in time and memory; and prompts on `lite`.

    python benchmarks/sam_speed.py [--rounds 3] [--threads 1] [--only encoder lora decode] [--json FILE]

Weights are random. Each figure comes from a process of its own, and the arms take turns, so that a busy machine slows
all alike; times are CPU seconds, median and range over the rounds; memory is the peak of the process. The floor is what
the multiplications would take at the rate of a large matrix product, measured in the same process.

CPU seconds count threads that wait, so with several threads there are also seconds by the clock, for which the machine
must be idle. The threads of all arms wait as SimMAT's do (`simmat.threads`).

encoder: one image. The first arm is `segment_anything` in fp32.
lora: one optimiser step on LoRA in the encoder, one image. The first arms are a plain step on `segment_anything` under
bf16 autocast: a click, a mask at the input's size, BCE. SimMAT's steps have 4 prompts, or 8, with one correction each.
decode: answers to prompts on one image of `lite`; the first arm is one prompt.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple, cast

# This imports simmat, which sets how threads wait; torch reads that when it is loaded.
from measuring import (
    Line,
    Seconds,
    add_json_option,
    at_matrix_rate,
    in_own_process,
    peak_mib,
    report,
    seconds_of,
    time_lines,
)

# isort: split
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SIZE = 1024
ARMS = {
    "encoder": ["package fp32", "package bf16", "simmat fp32", "simmat bf16"],
    "lora": [
        "package bf16",
        "simmat bf16",
        "simmat bf16 8 prompts",
        "simmat bf16 checkpointing",
        "simmat fp32",
    ],
    "decode": ["1 prompt", "16 prompts", "64 prompts"],
}
TITLES = {
    "encoder": "SAM ViT-B encoder",
    "lora": "LoRA step on SAM ViT-B",
    "decode": "decoder of lite",
}
TIME_AIMS = {
    ("encoder", "simmat fp32"): 0.59,
    ("encoder", "simmat bf16"): 0.29,
    ("lora", "simmat bf16"): 0.5,
    ("decode", "64 prompts"): 6.0,
}
MEMORY_AIMS = {("encoder", "simmat fp32"): 0.6, ("encoder", "simmat bf16"): 0.6}


class Figures(NamedTuple):
    """What one process measured: seconds, peak GiB, and seconds that the multiplications take at the least."""

    seconds: Seconds
    peak: float
    floor: Seconds


def make_work(part: str, arm: str) -> Callable[[], object]:
    """Return what is to be timed."""
    if part == "decode":
        return decode_work(int(arm.split()[0]))
    half = "bf16" in arm
    if part == "encoder":
        run = encoder_work("simmat" in arm)
    else:
        run = lora_work(
            "simmat" in arm, "checkpointing" in arm, 8 if "8 prompts" in arm else 4
        )

    def work() -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return run()

    return work


def encoder_work(ours: bool) -> Callable[[], object]:
    """Encode an image."""
    image = torch.randn(1, 3, SIZE, SIZE)
    if not ours:
        from segment_anything import sam_model_registry

        encoder = sam_model_registry["vit_b"]().eval().image_encoder
        return torch.inference_mode()(lambda: encoder(image))
    from simmat_plugin_sam.model import build_sam
    from simmat_plugin_sam.specs import SAM_VIT_B

    from simmat.nn.device import keep_freed_memory

    keep_freed_memory()  # as for every network that SimMAT loads
    backbone = build_sam(SAM_VIT_B, image_size=SIZE, weights=None, seed=0).backbone
    return torch.inference_mode()(lambda: backbone.encode(backbone.embed(image)))


def lora_work(ours: bool, checkpointing: bool, prompts: int) -> Callable[[], object]:
    """Do an optimiser step."""
    network, loss_of = simmat_loss(checkpointing, prompts) if ours else package_loss()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])

    def step() -> None:
        loss = loss_of()
        with torch.autocast("cpu", enabled=False):
            loss.backward()
            optimizer.step()

    return step


def package_loss() -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return `segment_anything` with LoRA and its loss for a click."""
    from segment_anything import sam_model_registry

    from simmat.nn.lora import add_lora

    sam = sam_model_registry["vit_b"]().requires_grad_(False)
    for block in sam.image_encoder.blocks:
        generator = torch.Generator().manual_seed(0)
        add_lora(
            block.attn.qkv,
            slices=(0, 2),
            parts=3,
            rank=4,
            alpha=4.0,
            generator=generator,
        )
    image, target = torch.randn(1, 3, SIZE, SIZE), torch.zeros(1, 1, SIZE, SIZE)
    click = torch.full((1, 1, 2), SIZE / 2), torch.ones(1, 1)

    def loss() -> Tensor:
        embedding = sam.image_encoder(image)
        sparse, dense = sam.prompt_encoder(points=click, boxes=None, masks=None)
        low, _ = sam.mask_decoder(
            embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, False
        )
        return F.binary_cross_entropy_with_logits(
            F.interpolate(low.float(), (SIZE, SIZE), mode="bilinear"), target
        )

    return sam, loss


def simmat_loss(
    checkpointing: bool, prompts: int
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a network with LoRA and its loss for some prompts, with a correction each."""
    from simmat_plugin_sam.model import build_sam
    from simmat_plugin_sam.specs import SAM_VIT_B

    from simmat.model import SimMAT
    from simmat.nn.device import keep_freed_memory
    from simmat.nn.losses import Batch, PromptLoss
    from simmat.nn.tuners import set_train_mode
    from simmat.plugins.builtin import TUNERS
    from simmat.plugins.registry import import_from_string
    from simmat.training.step import TrainingStep

    keep_freed_memory()
    sam = build_sam(SAM_VIT_B, image_size=SIZE, weights=None, seed=0).requires_grad_(
        False
    )
    lora = next(tuner for tuner in TUNERS if tuner.name == "lora")
    generator = torch.Generator().manual_seed(0)
    import_from_string(lora.apply)(
        sam, targets=SAM_VIT_B.targets, generator=generator, **lora.options
    )
    sam.gradient_checkpointing(checkpointing)
    model = SimMAT(nn.Conv2d(3, 3, 1), cast(Any, sam), "image")
    set_train_mode(model)
    step = TrainingStep(model, PromptLoss(), box_fraction=0.0, correction_clicks=1)
    targets = torch.zeros(1, prompts, SIZE, SIZE, dtype=torch.bool)
    targets[..., 300:700, 300:700] = True
    batch = Batch(
        planes=torch.randn(1, 3, SIZE, SIZE),
        content=torch.ones(1, SIZE, SIZE, dtype=torch.bool),
        targets=targets,
        ignore=torch.zeros(1, SIZE, SIZE, dtype=torch.bool),
        clicks=torch.full((1, prompts, 2), SIZE / 2),
        boxes=torch.tensor([300.0, 300, 700, 700]).expand(1, prompts, 4),
        draws=torch.full((1, prompts, 4), 0.5),
        step_draw=torch.ones(1),
        class_targets=torch.zeros(1, 0, dtype=torch.int64),
        distance=torch.zeros(1, 0),
    )
    return model, lambda: step(batch)["loss"]


def decode_work(count: int) -> Callable[[], object]:
    """Answer prompts of one image, at the size of the decoder."""
    from simmat_plugin_lite.spec import LITE

    from simmat.foundation import PromptBatch
    from simmat.model import build_foundation

    model: Any = build_foundation(LITE, image_size=256, weights=None, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        embedding = model.backbone.encode(
            model.backbone.embed(torch.randn(1, 3, 256, 256, generator=generator))
        )
    prompts = PromptBatch(
        image_index=torch.zeros(count, dtype=torch.int64),
        point_coords=torch.rand(count, 1, 2, generator=generator) * 256,
        point_labels=torch.ones(count, 1, dtype=torch.int64),
    )
    return torch.inference_mode()(lambda: model.decoder.decode(embedding, prompts))


def measure(part: str, arm: str) -> Figures:
    """Do the work of an arm and measure it."""
    work = make_work(part, arm)
    if part == "decode":
        work()  # the first call is slow, and short
    runs = 5 if part == "decode" else 1
    found = [seconds_of(work) for _ in range(runs)]
    seconds = Seconds(*(statistics.median(clock) for clock in zip(*found, strict=True)))
    return Figures(
        seconds, peak_mib() / 1024, at_matrix_rate(flops_of(part, work), "bf16" in arm)
    )


def flops_of(part: str, work: Callable[[], object]) -> float:
    """Return the multiplications and additions of a work; of an encoder those of the package's, on the meta device.

    Of a LoRA step they are the encoder's alone, forward and backward without gradients of the frozen weights.
    """
    with FlopCounterMode(display=False) as counter:
        if part == "decode":
            work()
        else:
            from segment_anything import sam_model_registry

            with torch.device("meta"), torch.set_grad_enabled(part == "lora"):
                encoder = sam_model_registry["vit_b"]().image_encoder.requires_grad_(
                    False
                )
                embedding = encoder(
                    torch.randn(1, 3, SIZE, SIZE, requires_grad=part == "lora")
                )
                if part == "lora":
                    embedding.sum().backward()
    return float(counter.get_total_flops())


def compare(part: str, rounds: int, threads: int) -> list[Line]:
    """Measure the arms of a part in turn; the first is the baseline of the others."""
    found: dict[str, list[Figures]] = {arm: [] for arm in ARMS[part]}
    for _ in range(rounds):
        for arm, figures in found.items():
            arguments = ("--measure", part, arm, "--threads", threads)
            seconds, peak, floor = in_own_process(
                __file__, *arguments, OMP_NUM_THREADS=str(threads)
            )
            figures.append(Figures(Seconds(*seconds), peak, Seconds(*floor)))
    lines: list[Line] = []
    (base, first), *others = found.items()
    for arm, figures in others:
        path, times = (
            f"{TITLES[part]}, {arm}",
            [[one.seconds for one in arms] for arms in (figures, first)],
        )
        floor = Seconds(
            *(min(clock) for clock in zip(*(one.floor for one in figures), strict=True))
        )
        lines += time_lines(
            path,
            times[0],
            base,
            times[1],
            floor,
            TIME_AIMS.get((part, arm)),
            threads=threads,
        )
        peaks = [[one.peak for one in arms] for arms in (figures, first)]
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    add_json_option(parser)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.measure:
        print(json.dumps(measure(*asked.measure)))
        return
    report(
        [
            line
            for part in asked.only
            for line in compare(part, asked.rounds, asked.threads)
        ],
        asked.json,
    )


if __name__ == "__main__":
    main()

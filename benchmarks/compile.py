"""Measure what torch.compile would gain: each part of the network as it is and compiled, in turn, in one process.

    python benchmarks/compile.py [--rounds 5] [--model lite:256] [--precision fp32] [--images 4]
                                 [--only encode click dense step] [--json FILE]

encode: one image. click: the answer to one click, for an image that is encoded. dense: the maps of the dense head.
step: there and back through a training step with LoRA on so many images, 4 prompts each with a correction. Encoder,
decoder and dense head are compiled; the losses are not, and each kind of prompt has a graph of its own.

Weights are random. Times are CPU seconds of one thread. Compiling is timed with an empty cache and one process, so that
the C++ compiler, which is needed, is counted. "Paid off" says after how many of the images, clicks or steps compiling
has won back its time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from measuring import Line, add_json_option, cpu_seconds, forget_peak, in_own_process, peak_mib, report
from torch import Tensor

from simmat.data.batches import Batch
from simmat.data.card import DataCard
from simmat.foundation import MaskPrediction, PromptBatch
from simmat.model import SimMAT, assemble, find_parts
from simmat.model_spec import DenseSpec, ModelSpec
from simmat.nn.dense_head import DenseAnswer, DenseHead
from simmat.nn.losses import LOSSES
from simmat.nn.tuners import set_train_mode
from simmat.plugins.loader import load_plugins
from simmat.sensors.normalize import Statistics
from simmat.training.step import TrainingStep
from simmat.types import Channel

PARTS = {"encode": "image", "click": "click", "dense": "image", "step": "step"}
"""What is measured -> what it takes one of."""
PROMPTS = 4


class Figures(NamedTuple):
    """What one process measured.

    Attributes:
        plain: CPU seconds of each round.
        compiled: the same, compiled.
        compiling: CPU seconds of the first call beyond those of a later one.
        peaks: peak MiB of a call, plain and compiled.
        difference: the largest between the results, as a share of the largest value.
    """

    plain: list[float]
    compiled: list[float]
    compiling: float
    peaks: list[float]
    difference: float


def network(name: str, size: int) -> SimMAT:
    """Return a network with random weights, LoRA and a dense head on one channel."""
    registry, gray = load_plugins(), Channel("gray", "counts", "count")
    spec = ModelSpec(
        modality="gray",
        sensor_channels=(gray,),
        channels=(gray.with_statistics(128, 50),),
        statistics=Statistics((128.0,), (50.0,), ((1.0,),), (1,)),
        zero_shot=((1.0,),) * 3,
        foundation=name,
        seed=0,
        image_size=size,
        mat="mat-residual",
        tune="lora",
        dense=DenseSpec(classes=(None,), background=True),
        card=DataCard(regions="instances"),
    )
    return assemble(spec, find_parts(spec, registry, None))


def batch_of(size: int, images: int) -> Batch:
    """Return images of noise with a square on each, which is asked for by clicks."""
    inside = slice(size // 4, size // 2)
    targets = torch.zeros(images, PROMPTS, size, size, dtype=torch.bool)
    targets[..., inside, inside] = True
    corners = torch.tensor([size / 4, size / 4, size / 2, size / 2])
    return Batch(
        planes=torch.randn(images, 1, size, size, generator=torch.Generator().manual_seed(0)),
        content=torch.ones(images, size, size, dtype=torch.bool),
        targets=targets,
        ignore=torch.zeros(images, size, size, dtype=torch.bool),
        clicks=torch.full((images, PROMPTS, 2), size * 0.4),
        boxes=corners.repeat(images, PROMPTS, 1),
        draws=torch.full((images, PROMPTS, 4), 0.5),
        step_draw=torch.ones(1),
        classes=targets[:, 0].long(),
        distance=targets[:, 0].float(),
    )


def arm(part: str, name: str, size: int, images: int, compiled: bool) -> Callable[[], Sequence[Tensor]]:
    """Return what is to be timed; it returns the results to compare."""
    model, batch = network(name, size), batch_of(size, images if part == "step" else 1)
    if compiled:
        for method in ("encode", "decode"):  # the results of functions, so that no weight gets another name
            setattr(model, method, torch.compile(getattr(model, method)))
        if model.dense is not None:
            model.dense.compile()
    if part == "step":
        set_train_mode(model)
        step = TrainingStep(model, LOSSES["focal"], box_fraction=0.0, corrections=1)
        return lambda: there_and_back(step, batch)
    model.eval()
    if part == "encode":
        return lambda: model.encode(batch.planes, batch.content).levels
    with torch.inference_mode():
        embedding = SimMAT.encode(model, batch.planes, batch.content)
    if part == "click":
        click = PromptBatch(torch.zeros(1, dtype=torch.int64), batch.clicks[0, :1, None], torch.ones(1, 1).long())
        return lambda: parts_of(model.decode(embedding, click))
    return lambda: parts_of(cast(DenseHead, model.dense)(embedding))


def parts_of(answer: MaskPrediction | DenseAnswer) -> list[Tensor]:
    """Return the tensors of an answer."""
    return list(vars(answer).values())


def there_and_back(step: TrainingStep, batch: Batch) -> list[Tensor]:
    """Return the loss of a step and its gradients."""
    loss = step(batch)["loss"]
    with torch.autocast("cpu", enabled=False):
        loss.backward()
    grads = [weight.grad for weight in step.parameters() if weight.grad is not None]
    step.zero_grad()
    return [loss.detach(), *grads]


def measure(part: str, name: str, size: int, images: int, rounds: int, half: bool) -> Figures:
    """Measure a part, both ways in turn."""

    def timed(compiled: bool) -> Callable[[], Sequence[Tensor]]:
        call = arm(part, name, size, images, compiled)

        def work() -> Sequence[Tensor]:
            with torch.inference_mode(part != "step"), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return call()

        return work

    ways, peaks = {compiled: timed(compiled) for compiled in (False, True)}, []
    before = all_cpu_seconds()
    mine = ways[True]()
    first = all_cpu_seconds() - before
    others = ways[False]()
    pairs = [(one.float(), other.float()) for one, other in zip(mine, others, strict=True)]
    difference = max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-9)) for one, other in pairs)
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for compiled, work in ways.items():
            found[compiled].append(cpu_seconds(work))
    for work in ways.values():
        forget_peak()
        work()
        peaks.append(peak_mib())
    return Figures(found[False], found[True], first - statistics.median(found[True]), peaks, difference)


def all_cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those it has waited for, which are compilers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="lite:256", metavar="MODEL:SIZE")
    parser.add_argument("--images", type=int, default=4, help="of a training step")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    add_json_option(parser)
    asked = parser.parse_args()
    name, _, size = asked.model.partition(":")
    torch.set_num_threads(1)
    if asked.measure:
        half = asked.precision == "bf16"
        print(json.dumps(measure(asked.measure, name, int(size), asked.images, asked.rounds, half)))
        return
    lines, more = [], ["| path | compiling, CPU s | paid off after | peak MiB, plain and compiled | difference |"]
    more.append("|---|---|---|---|---|")
    for part in asked.only:
        with tempfile.TemporaryDirectory() as cache:
            variables = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            arguments = ("--measure", part, *sys.argv[1:])
            found = Figures(*in_own_process(__file__, *arguments, OMP_NUM_THREADS="1", **variables))
        path = f"{part}, {name} at {size} px"
        lines.append(Line(path, "CPU s", found.compiled, "not compiled", found.plain))
        won = statistics.median(found.plain) - statistics.median(found.compiled)
        paid = f"{found.compiling / won:.0f} {PARTS[part]}s" if won > 0 else "never"
        peaks = " and ".join(f"{peak:.0f}" for peak in found.peaks)
        more.append(f"| {path} | {found.compiling:.0f} | {paid} | {peaks} | {found.difference:.1g} |")
    report(lines, asked.json)
    print("\n".join(more))


if __name__ == "__main__":
    main()

"""Time and memory of `lite` as functions of pixels, channels, prompts and images: nothing may grow faster than it must.

    python benchmarks/scaling.py [--runs 3] [--only pixels channels prompts images] [--points FILE] [--figure PNG]

Each point is a fresh process with one thread: CPU ms (median of the runs after the first), and the peak of its memory
above what it held before (of the first run). The growth between two points is the exponent of what is varied:
1 is proportional. In theory time grows as the multiplications, which are counted, and memory at most proportionally;
growth that is more than 0.15 above both is marked. Points that are in FILE are not measured again.

encode: planes of 256 px to features. answer: the masks of clicks on an encoded image. step: a training step (LoRA, two
clicks on each of 4 objects). predict: an image of any size is resized to 256 px, encoded and asked for a mask of its
own size.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from measuring import cpu_seconds, forget_peak, peak_mib
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from simmat.bundle import load_bundle, trained_tensors, write_bundle
from simmat.data.card import DataCard
from simmat.io.files import atomic_path, atomic_write_json
from simmat.model import SimMAT, assemble, find_parts
from simmat.model_spec import ModelSpec
from simmat.nn.losses import Batch, PromptLoss
from simmat.nn.tuners import set_train_mode
from simmat.plugins.loader import load_plugins
from simmat.predictor import Predictor
from simmat.sensors.normalize import Statistics
from simmat.training.step import TrainingStep
from simmat.types import Channel, Prompt

SIDES, WIDE_SIDES, FEW_SIDES = (
    (128, 256, 512, 1024),
    (256, 512, 1024, 2048, 4096),
    (128, 256, 512),
)
CHANNELS, PROMPTS, IMAGES = (1, 4, 16, 64, 224), (1, 4, 16, 64), (1, 2, 4, 8, 16)
SWEEPS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "pixels": (
        "side",
        {"encode": SIDES, "answer": SIDES, "step": FEW_SIDES, "predict": WIDE_SIDES},
    ),
    "channels": (
        "channels",
        {"encode": CHANNELS, "step": CHANNELS, "predict": CHANNELS},
    ),
    "prompts": ("prompts", {"answer": PROMPTS, "step": PROMPTS[:-1]}),
    "images": ("images", {"encode": IMAGES, "step": IMAGES[:-2]}),
}
"""What is varied -> its setting, and the works with their values."""

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
SLACK = 0.15
ONLY_LITE = {"SIMMAT_PLUGINS": "lite"}


class Setting(NamedTuple):
    """The size of a work; `prompts` are those of an image."""

    side: int = 256
    channels: int = 3
    prompts: int = 1
    images: int = 1


class Point(NamedTuple):
    """What one process measured: CPU ms, peak MiB above the start, and 10⁹ multiplications and additions."""

    ms: float
    mib: float
    gflop: float


def make_model(setting: Setting, tune: str, side: int) -> tuple[ModelSpec, SimMAT]:
    """Return a `lite` of random weights with the default transfer layer."""
    count = setting.channels
    channels = tuple(
        Channel(f"band{index}", "counts", "count") for index in range(count)
    )
    spec = ModelSpec(
        modality="raster",
        sensor_channels=channels,
        channels=tuple(channel.with_statistics(0, 1) for channel in channels),
        statistics=Statistics(
            (0.0,) * count,
            (1.0,) * count,
            tuple(tuple(row) for row in np.eye(count).tolist()),
            (1,) * count,
        ),
        zero_shot=((1 / count,) * count,) * 3,
        foundation="lite",
        seed=0,
        image_size=side,
        mat="mat-residual",
        tune=tune,
        card=DataCard(regions="instances"),
    )
    return spec, assemble(spec, find_parts(spec, load_plugins(env=ONLY_LITE), None))


def encode_work(setting: Setting) -> Callable[[], object]:
    """Encode images."""
    _, model = make_model(setting, "frozen", setting.side)
    model.eval()
    planes, content = planes_of(setting)
    return torch.inference_mode()(lambda: model.encode(planes, content))


def planes_of(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Return planes and content, see `SimMAT.encode`."""
    batch, side = setting.images, setting.side
    return torch.randn(batch, setting.channels, side, side), torch.ones(
        batch, side, side, dtype=torch.bool
    )


def answer_work(setting: Setting) -> Callable[[], object]:
    """Answer clicks on an image."""
    predictor, side = make_predictor(setting, setting.side), setting.side
    predictor.set_image(image_of(setting))
    prompts = [
        Prompt.points([xy])
        for xy in np.random.default_rng(0)
        .uniform(0, side, (setting.prompts, 2))
        .tolist()
    ]
    return lambda: predictor.predict_prompts(prompts)


def make_predictor(setting: Setting, side: int) -> Predictor:
    """Return a predictor whose network takes images of `side` pixels."""
    spec, model = make_model(setting, "frozen", side)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle.safetensors")
        write_bundle(bundle, spec, trained_tensors(model))
        return Predictor.of_bundle(load_bundle(bundle, load_plugins(env=ONLY_LITE)))


def image_of(setting: Setting) -> npt.NDArray[np.float32]:
    """Return an image."""
    return np.random.default_rng(0).random(
        (setting.channels, setting.side, setting.side), np.float32
    )


def step_work(setting: Setting) -> Callable[[], object]:
    """Do an optimiser step."""
    _, model = make_model(setting, "lora", setting.side)
    set_train_mode(model)
    step = TrainingStep(model, PromptLoss(), box_fraction=0.0, correction_clicks=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    batch, prompts, side = setting.images, setting.prompts, setting.side
    planes, content = planes_of(setting)
    targets = torch.zeros(batch, prompts, side, side, dtype=torch.bool)
    targets[..., side // 4 : side // 2, side // 4 : side // 2] = True
    items = Batch(
        planes=planes,
        content=content,
        targets=targets,
        ignore=~content,
        clicks=torch.full((batch, prompts, 2), 0.4 * side),
        boxes=torch.tensor([side / 4, side / 4, side / 2, side / 2]).expand(
            batch, prompts, 4
        ),
        draws=torch.full((batch, prompts, 4), 0.5),
        step_draw=torch.ones(1),
        class_targets=torch.zeros(batch, 0, dtype=torch.int64),
        distance=torch.zeros(batch, 0),
    )

    def work() -> None:
        optimizer.zero_grad()
        step(items)["loss"].backward()
        optimizer.step()

    return work


def predict_work(setting: Setting) -> Callable[[], object]:
    """Ask for the mask of a click on an image of any size."""
    predictor, image, side = (
        make_predictor(setting, 256),
        image_of(setting),
        setting.side,
    )

    def work() -> None:
        predictor.set_image(image)
        predictor.predict(points=[(side / 2, side / 2)])

    return work


WORKS = {
    "encode": encode_work,
    "answer": answer_work,
    "step": step_work,
    "predict": predict_work,
}
DEFAULTS = {"step": Setting(prompts=4)}


def measure(work: str, setting: Setting, runs: int) -> Point:
    """Do a work and measure it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    call = WORKS[work](setting)
    forget_peak()
    before = peak_mib()
    call()
    grown = peak_mib() - before
    ms = 1e3 * statistics.median(cpu_seconds(call) for _ in range(runs))
    with FlopCounterMode(
        display=False, custom_mapping={CPU_ATTENTION: attention_flop}
    ) as counter:  # its imports would count as memory
        call()
    return Point(ms, grown, counter.get_total_flops() / 1e9)


def attention_flop(
    query: list[int], key: list[int], value: list[int], *_: object, **__: object
) -> int:
    """Return the multiplications and additions of attention on (B, heads, N, D), which torch counts on GPUs only."""
    batch, heads, count, width = query
    return 2 * batch * heads * count * key[2] * (width + value[3])


def growth(name: str, sizes: Mapping[int, Point], figure: str) -> list[float]:
    """Return the exponents between neighbours, of a figure, with what is varied as its size."""
    power = 2 if name == "pixels" else 1
    pairs = list(sizes.items())
    return [
        math.log(getattr(b, figure) / getattr(a, figure))
        / math.log((size_b / size_a) ** power)
        for (size_a, a), (size_b, b) in itertools.pairwise(pairs)
    ]


class Points:
    """Points that are measured once and kept in a file."""

    def __init__(self, file: Path | None, runs: int) -> None:
        self.file, self.runs = file, runs
        self.known: dict[str, Any] = (
            json.loads(file.read_text()) if file is not None and file.exists() else {}
        )

    def get(self, work: str, setting: Setting) -> Point:
        """Return a point; measure it if it is not known."""
        key = " ".join([work, *map(str, setting)])
        if key not in self.known:
            # A process that a server forks has the imports, and nothing of other points.
            with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
                self.known[key] = pool.submit(
                    measure, work, setting, self.runs
                ).result()
            if self.file is not None:
                atomic_write_json(self.file, self.known)
        return Point(*self.known[key])


def sweep(name: str, measured: Points) -> dict[str, dict[int, Point]]:
    """Measure all points of what is varied, and print them."""
    field, works = SWEEPS[name]
    print(
        f"{name:<22} {'CPU ms':>9} {'grows':>6} {'theory':>7} {'MiB':>8} {'grows':>6} {'GFLOP':>8}",
        flush=True,
    )
    found: dict[str, dict[int, Point]] = {}
    for work, values in works.items():
        points = found[work] = {}
        for value in values:
            setting = DEFAULTS.get(work, Setting())._replace(**{field: value})
            points[value] = measured.get(work, setting)
            print(line_of(name, work, points), flush=True)
    print()
    return found


def line_of(name: str, work: str, points: Mapping[int, Point]) -> str:
    """Return the line of the last point."""
    value, point = list(points.items())[-1]
    shown = f"{work:<10} {value:>10}  {point.ms:>9.1f} {{}} {point.mib:>8.1f} {{}} {point.gflop:>8.2f}"
    if len(points) == 1:
        return shown.format(" " * 14, " " * 6)
    time, memory, theory = (
        growth(name, points, figure)[-1] for figure in ("ms", "mib", "gflop")
    )
    marks = [
        "  time grows faster" * (time > max(theory, 1) + SLACK),
        "  memory grows faster" * (memory > 1 + SLACK),
    ]
    return shown.format(f"{time:>6.2f} {theory:>7.2f}", f"{memory:>6.2f}") + "".join(
        marks
    )


def draw(found: Mapping[str, Mapping[str, Mapping[int, Point]]], out: Path) -> None:
    """Draw a column of panels for each thing that is varied: time, with its theory dashed, above memory."""
    from matplotlib.ticker import NullFormatter
    from simmat_plugin_report.plots import (
        COLOURS,
        figure_bytes,
        line_style,
        new_figure,
        style_axes,
    )

    figure = new_figure((2.7 * len(found), 4.8))
    panels: Any = figure.subplots(
        2, len(found), squeeze=False, sharex="col", sharey="row"
    )
    places = {work: place for place, work in enumerate(WORKS)}
    for column, (name, works) in enumerate(found.items()):
        for work, points in works.items():
            look: dict[str, Any] = line_style(places[work])
            sizes = np.array(list(points), float) ** (2 if name == "pixels" else 1)
            ms, mib, gflop = (
                np.array(values) for values in zip(*points.values(), strict=True)
            )
            theory: dict[str, Any] = {"lw": 1, "alpha": 0.7, **look, "ls": (0, (3, 2))}
            panels[0, column].plot(
                sizes, ms, marker="o", ms=3.5, lw=1.6, label=work, **look
            )
            panels[0, column].plot(sizes, gflop * ms[0] / gflop[0], **theory)
            panels[1, column].plot(sizes, mib, marker="o", ms=3.5, lw=1.6, **look)
            if name != "channels":  # of many bands only the image itself grows
                panels[1, column].plot(sizes, sizes * mib[0] / sizes[0], **theory)
        panels[1, column].set_xlabel(name, color=COLOURS["faint"])
        for axes in panels[:, column]:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            style_axes(axes)
    panels[0, 0].set_ylabel("CPU ms", color=COLOURS["faint"])
    panels[1, 0].set_ylabel("peak MiB above the start", color=COLOURS["faint"])
    handles = [
        handle for axes in panels[0] for handle in axes.get_legend_handles_labels()[0]
    ]
    named = {str(handle.get_label()): handle for handle in handles}
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=len(named),
        frameon=False,
        fontsize=9,
    )
    with atomic_path(out) as path:
        Image.open(io.BytesIO(figure_bytes(figure))).convert("RGB").quantize(64).save(
            path, "png", optimize=True
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--points", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    given = parser.parse_args()
    points = Points(given.points, given.runs)
    found = {name: sweep(name, points) for name in given.only}
    if given.figure:
        draw(found, given.figure)


if __name__ == "__main__":
    main()

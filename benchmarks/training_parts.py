"""Measure the CPU time of two parts of a training step against the plain way to write them, both in turn.

    python benchmarks/training_parts.py [--runs 5] [--precision fp32|bf16] [--json FILE]

The transfer layer against the same with weights channels first; the losses of 24 prompts at 256 px against the same
formulas written out map by map. The floor is what the multiplications take at the rate of a large matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from measuring import Line, in_turn, least_seconds, parser_of, report, time_lines
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import MaskPrediction
from simmat.nn.losses import FOCAL_ALPHA, FOCAL_GAMMA, mask_loss
from simmat.nn.mat import conv2d, conv_stack

IMAGES, PROMPTS, MASKS, SIDE, WIDTH = 6, 24, 4, 256, 64


def layers() -> dict[str, Callable[[], Tensor]]:
    """Return the loss of the paper's layer on one channel, written both ways."""
    planes = torch.randn(IMAGES, 1, SIDE, SIDE)
    generator = torch.Generator().manual_seed(0)
    pair = conv2d(1, WIDTH, 3, generator), conv2d(WIDTH, 3, 3, generator)
    first = nn.Sequential(pair[0], nn.ReLU(), pair[1]).to(
        memory_format=torch.contiguous_format
    )
    last = conv_stack(conv2d(1, WIDTH, 3, generator), conv2d(WIDTH, 3, 3, generator))
    return {
        "channels first": lambda: first(planes).float().sum(),
        "as built": lambda: last(planes).float().sum(),
    }


def losses() -> dict[str, Callable[[], Tensor]]:
    """Return the losses of the same masks, both ways."""
    logits = torch.randn(PROMPTS, MASKS, SIDE // 2, SIDE // 2, requires_grad=True)
    iou = torch.rand(PROMPTS, MASKS, requires_grad=True)
    targets = torch.rand(PROMPTS, SIDE, SIDE) > 0.8
    ignore = torch.zeros_like(targets)
    return {
        "map by map": lambda: map_by_map(logits, targets, ignore),
        "as built": lambda: mask_loss(MaskPrediction(logits, iou), targets, ignore)[
            0
        ].mean(),
    }


def map_by_map(logits: Tensor, targets: Tensor, ignore: Tensor) -> Tensor:
    """Focal and dice loss of every mask, and its IoU, each term a map of its own."""
    shown = F.interpolate(
        logits, (SIDE, SIDE), mode="bilinear", align_corners=False
    ).flatten(2)
    weight = (~ignore).flatten(1)[:, None].float()
    truth = targets.flatten(1)[:, None].float().expand_as(shown) * weight
    pixel = F.binary_cross_entropy_with_logits(shown, truth, reduction="none")
    wrong = torch.where(truth > 0, -shown, shown).sigmoid()
    pixel = (
        pixel
        * wrong**FOCAL_GAMMA
        * torch.where(truth > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    )
    chance = shown.sigmoid() * weight
    dice = 1 - (2 * (chance * truth).sum(-1) + 1) / (chance.sum(-1) + truth.sum(-1) + 1)
    with torch.no_grad():
        inside = (shown > 0).float() * weight
        shared = (inside * truth).sum(-1)
        union = inside.sum(-1) + truth.sum(-1) - shared
    return (20 * (pixel * weight).sum(-1) / weight.sum(-1) + dice).mean() + 0 * (
        shared / union
    ).mean()


def there_and_back(forward: Callable[[], Tensor], half: bool) -> None:
    """Compute a loss and its gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = forward()
    loss.backward()  # type: ignore[no-untyped-call]


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    half = given.precision == "bf16"
    lines: list[Line] = []
    for part, ways in (("transfer layer", layers()), ("losses", losses())):
        calls = {
            name: partial(there_and_back, forward, half)
            for name, forward in ways.items()
        }
        baseline, ours = calls
        found = in_turn(calls, given.runs)
        # losses have few products
        floor = least_seconds(calls[ours], half) if part == "transfer layer" else None
        lines += time_lines(
            f"{part}, there and back",
            found[ours],
            baseline,
            found[baseline],
            floor,
            aim=1,
        )
    report(lines, given.json)


if __name__ == "__main__":
    main()

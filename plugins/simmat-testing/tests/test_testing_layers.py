"""The contracts of transfer layers, tuners and commands: each rule fails for what breaks it, and for nothing good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
import torch
from simmat_testing.checks import PartCase, run_check
from simmat_testing.find_parts import (
    COMMAND_CHECKS,
    TRANSFER_LAYER_CHECKS,
    TUNER_CHECKS,
)
from simmat_testing.networks import TUNER
from torch import Tensor, nn

from simmat.plugin_specs import TransferLayerSpec, TunerSpec
from simmat.plugins.builtin import TRANSFER_LAYERS


class Layer(nn.Module):
    """Three planes, each the mean of all channels times a weight; what is wrong stands in `fault`."""

    def __init__(self, fault: str, generator: torch.Generator) -> None:
        super().__init__()
        self.fault = fault
        self.weight = nn.Parameter(
            torch.rand(3, 1, 1, generator=None if fault == "seed" else generator)
        )
        if fault == "unused":
            self.unused = nn.Parameter(torch.zeros(1))
        self.hidden = (
            float(torch.rand((), generator=generator)) if fault == "hidden" else 0.0
        )

    def forward(self, planes: Tensor) -> Tensor:
        mean = planes.mean(1, keepdim=True) * self.weight + self.hidden
        return mean[:, :, ::2] if self.fault == "shape" else mean


def build_layer(
    *,
    channels: Any,
    zero_shot: Any,
    backbone: Any,
    generator: torch.Generator,
    fault: str,
) -> nn.Module:
    """Build a layer."""
    return Layer(fault, generator)


def apply_tuner(
    model: nn.Module, *, targets: Any, generator: torch.Generator, fault: str
) -> None:
    """Train a layer of the decoder."""
    layer = model.get_submodule("decoder.weigh")
    layer.requires_grad_(True)
    if fault == "never":
        model.get_submodule("decoder.prompt").requires_grad_(True)
    if fault == "unused":
        layer.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    if fault == "seed":
        nn.init.normal_(layer.weight)
    if fault == "answers":
        nn.init.ones_(layer.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "fault"),
    list(
        zip(TRANSFER_LAYER_CHECKS, ("shape", "seed", "unused", "hidden"), strict=True)
    ),
)
def test_a_broken_layer_fails_its_check_and_a_good_one_passes(
    check: str, fault: str, tmp_path: Path
) -> None:
    """A check that nothing fails may check nothing."""
    for option, status in ((fault, "failed"), ("", "ok")):
        spec = TransferLayerSpec(
            "broken", "a layer", f"{__name__}:build_layer", options={"fault": option}
        )
        result = run_check(TRANSFER_LAYER_CHECKS[check], PartCase(spec, tmp_path))
        assert (result.status, bool(result.advice)) == (status, status == "failed"), (
            result.why
        )


@pytest.mark.parametrize(
    ("check", "fault", "status"),
    [
        ("tuner-leaves-the-model-as-it-was", "answers", "skipped"),
        ("tuner-is-seeded", "seed", "failed"),
        ("tuner-trains-with-a-gradient", "unused", "failed"),
        ("tuner-trains-with-a-gradient", "never", "failed"),
    ],
)
def test_a_broken_tuner_fails_its_check_and_a_good_one_passes(
    check: str, fault: str, status: str, tmp_path: Path
) -> None:
    """A check that nothing fails may check nothing."""
    for option, expected in ((fault, status), ("", "ok")):
        spec = TunerSpec(
            "broken", "a tuner", f"{__name__}:apply_tuner", options={"fault": option}
        )
        assert (
            run_check(TUNER_CHECKS[check], PartCase(spec, tmp_path)).status == expected
        )


def test_a_command_without_help_fails(tmp_path: Path) -> None:
    """It would stand in the list of commands without a word."""
    for text, status in (("", "failed"), ("Do it.", "ok")):
        case = PartCase(click.Command("do", help=text), tmp_path)
        result = run_check(COMMAND_CHECKS["command-shows-its-help"], case)
        assert result.status == status


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", [*TRANSFER_LAYERS, *TUNER.values()], ids=lambda spec: spec.name
)
def test_our_own_parts_keep_their_contract(spec: Any, tmp_path: Path) -> None:
    """The rules are those that our own parts keep."""
    is_layer = isinstance(spec, TransferLayerSpec)
    for check in (TRANSFER_LAYER_CHECKS if is_layer else TUNER_CHECKS).values():
        assert run_check(check, PartCase(spec, tmp_path)).status != "failed"

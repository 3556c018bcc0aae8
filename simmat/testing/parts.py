"""Checks of transfer layers and tuners, with the model `tiny`, and of commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from simmat.errors import ConfigError, SimMATError, few_of
from simmat.foundation import FoundationModel
from simmat.model import SimMAT
from simmat.nn.tuners import set_train_mode
from simmat.plugin_specs import TransferLayerSpec, TunerSpec
from simmat.plugins.builtin import TINY
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.foundation_answers import CLICK, KEEP_IN_STATE, copy_state, images, predict, prompt_kinds
from simmat.testing.networks import build_network, square_loss

SIZE = 64
"""Side S of the input of the networks that are built, in pixels."""
CHANNELS = (1, 3, 5)
"""Numbers of channels that layers are built for."""
_SEEDED = "draw every random weight from `generator`"


@dataclass(frozen=True)
class TransferLayerCase:
    """A transfer layer, and a scratch folder."""

    spec: TransferLayerSpec
    folder: Path

    def networks(self, seed: int = 0) -> dict[int, SimMAT]:
        """Return a network for each number of channels that the layer takes; fail where it takes none."""
        found: dict[int, SimMAT] = {}
        refusals: list[SimMATError] = []
        for count in CHANNELS:
            try:
                found[count] = build_network(TINY, image_size=SIZE, channels=count, transfer=self.spec, seed=seed)
            except ConfigError as error:
                refusals.append(error)
        if not found:
            raise CheckFailed(f"it is not built for {CHANNELS} channels: {refusals[0]}", "look at its builder")
        return found


@dataclass(frozen=True)
class TunerCase:
    """A tuner."""

    spec: TunerSpec

    def network(self, tuner: str | TunerSpec | None = None) -> SimMAT:
        """Return a network tuned by it or by another one; skip the check where it refuses the model."""
        try:
            return build_network(TINY, image_size=SIZE, tuner=self.spec if tuner is None else tuner)
        except ConfigError as error:
            raise CheckSkipped(f"it does not take {TINY.name}, the model of the checks: {error}") from error


def _planes(channels: int) -> tuple[Tensor, Tensor]:
    """Return (2, C, S, S) noise that is 0 in padding, and the (2, S, S) content, False there."""
    content = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    content[:, -8:] = False
    noise = torch.randn(2, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return noise * content[:, None], content


def _silent(network: SimMAT, channels: int, part: nn.Module) -> list[str]:
    """Return the parameters of a part that train and get no finite gradient from prompts of every kind."""
    kinds = prompt_kinds(cast(FoundationModel, network.foundation), SIZE).values()
    set_train_mode(network)
    total = torch.stack([square_loss(network, *_planes(channels), prompts) for prompts in kinds]).sum()
    if total.requires_grad:
        torch.autograd.backward(total)
    return [
        name
        for name, parameter in part.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.isfinite().all()))
    ]


def layer_gives_its_output(case: TransferLayerCase) -> None:
    """The layer is built with its default options, and gives what the `output` of its spec says."""
    for count, network in case.networks().items():
        planes, content = _planes(count)
        backbone = cast(FoundationModel, network.foundation).backbone
        with torch.no_grad():
            embedded = tuple(backbone.embed(images(2, SIZE)).shape)
            found = network.mat(planes) if case.spec.output == "image" else network.mat(planes, content)
        parts = found if case.spec.output == "image+features" else (found,)
        image, features = (2, 3, SIZE, SIZE), embedded
        expected = {"image": (image,), "features": (features,), "image+features": (image, features)}[case.spec.output]
        shapes = tuple(tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts)
        if shapes != expected:
            raise CheckFailed(
                f"of {count} channels it makes {shapes}, and output is {case.spec.output!r}: {expected}",
                "return tensors of these shapes: the image of the model, or what `backbone.embed` gives",
            )
        if not all(bool(part.isfinite().all()) for part in parts):
            raise CheckFailed(f"of {count} channels it makes NaN or infinity", "keep its values finite")


def layer_is_seeded(case: TransferLayerCase) -> None:
    """The same seed gives the same weights, and torch's own random state is not changed."""
    before = torch.random.get_rng_state()
    one, two = (case.networks() for _ in range(2))
    if not torch.equal(before, torch.random.get_rng_state()):
        raise CheckFailed("building the layer changed torch's random state", _SEEDED)
    for count, network in one.items():
        for name, tensor in network.mat.state_dict().items():
            if not torch.equal(tensor, two[count].mat.state_dict()[name]):
                raise CheckFailed(f"two layers of one seed differ in {name}", _SEEDED)


def layer_trains_with_a_gradient(case: TransferLayerCase) -> None:
    """Every parameter of the layer that trains gets a finite gradient."""
    for count, network in case.networks().items():
        if silent := _silent(network, count, network.mat):
            raise CheckFailed(
                f"of {count} channels these train without a gradient: {few_of(silent)}",
                "use every parameter in `forward`, and make buffers of tensors that are fixed",
            )


def layer_survives_safetensors(case: TransferLayerCase) -> None:
    """The state dict, written to safetensors and loaded into a layer of another seed, gives the same answers."""
    others = case.networks(seed=1)
    for count, network in case.networks().items():
        planes, content = _planes(count)
        other = others[count]
        other.foundation.load_state_dict(network.foundation.state_dict())
        copy_state(network.mat, other.mat, case.folder / "layer.safetensors")
        with torch.no_grad():
            one, two = (each.eval().encode(planes, content).levels for each in (network, other))
        if not all(torch.equal(a, b) for a, b in zip(one, two, strict=True)):
            raise CheckFailed("a layer with the loaded state answers differently", KEEP_IN_STATE)


def tuner_leaves_the_model_as_it_was(case: TunerCase) -> None:
    """At step 0 the model answers as before; a tuner whose method says otherwise is skipped."""
    tuned, plain = case.network(), case.network("frozen")
    pictures, click = images(2, SIZE), prompt_kinds(cast(FoundationModel, plain.foundation), SIZE)[CLICK]
    before, after = (predict(cast(FoundationModel, each.foundation), pictures, click) for each in (plain, tuned))
    if not torch.allclose(before.logits, after.logits, rtol=1e-4, atol=1e-4):
        raise CheckSkipped(
            f"the logits change by {float((before.logits - after.logits).abs().max()):.3g} before any training; right "
            "only where the method is defined so, else start new branches at zero"
        )


def tuner_is_seeded(case: TunerCase) -> None:
    """The same seed gives the same weights, and torch's own random state is not changed."""
    before = torch.random.get_rng_state()
    one, two = (case.network().foundation.state_dict() for _ in range(2))
    if not torch.equal(before, torch.random.get_rng_state()):
        raise CheckFailed("applying the tuner changed torch's random state", _SEEDED)
    if different := [name for name, tensor in one.items() if not torch.equal(tensor, two[name])]:
        raise CheckFailed(f"two models of one seed differ in {few_of(different)}", _SEEDED)


def tuner_trains_with_a_gradient(case: TunerCase) -> None:
    """Every parameter that the tuner lets train gets a finite gradient, and none of `targets.never` trains."""
    network = case.network()
    fixed = TINY.targets.never
    trains = [name for name, parameter in network.foundation.named_parameters() if parameter.requires_grad]
    if wrong := [name for name in trains if any(re.fullmatch(pattern, name) for pattern in fixed)]:
        raise CheckFailed(f"it trains what targets.never keeps fixed: {few_of(wrong)}", "leave those out")
    if silent := _silent(network, 3, network.foundation):
        raise CheckFailed(
            f"these train without a gradient: {few_of(silent)}",
            "leave out what targets.never matches, and parameters that nothing uses",
        )


def command_shows_its_help(case: click.Command) -> None:
    """`--help` works, and says in a line what the command is for."""
    done = CliRunner().invoke(case, ["--help"], prog_name=f"simmat {case.name}")
    if done.exit_code:
        raise CheckFailed(f"--help ends with {done.exception or done.output}", "look at its options")
    if not case.get_short_help_str():
        raise CheckFailed("it has no help", "give its function a docstring")

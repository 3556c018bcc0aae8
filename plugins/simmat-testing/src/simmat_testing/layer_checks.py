"""Checks of transfer layers and tuners, with the model `tiny`."""

from __future__ import annotations

import re
from typing import cast

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError, few_of
from simmat.foundation import FoundationModel
from simmat.model import SimMAT
from simmat.plugin_specs import TunerSpec
from simmat_testing.checks import CheckFailed, CheckSkipped, PartCase
from simmat_testing.foundation_checks import (
    CLICK,
    KEEP_IN_STATE,
    check_seeded,
    copy_state,
    images,
    predict,
    prompt_kinds,
)
from simmat_testing.networks import backpropagate, build_network
from simmat_testing.tiny import TINY

_SIZE = 64
"""Side S of the input of the networks that are built, in pixels."""
_CHANNELS = (1, 3, 5)
"""Numbers of channels that layers are built for."""


def layer_networks(case: PartCase, seed: int = 0) -> dict[int, SimMAT]:
    """Return a network for each number of channels that a transfer layer takes; fail where it takes none."""
    found: dict[int, SimMAT] = {}
    refusal = ""
    for count in _CHANNELS:
        try:
            found[count] = build_network(
                TINY,
                image_size=_SIZE,
                channels=count,
                transfer=case.spec,
                seed=seed,
            )
        except ConfigError as error:
            refusal = str(error)
    if not found:
        raise CheckFailed(
            f"it is not built for {_CHANNELS} channels: {refusal}",
            "look at its builder",
        )
    return found


def tuned_network(tuner: TunerSpec | str) -> SimMAT:
    """Return a network under a tuner; skip the check where it refuses the model."""
    try:
        return build_network(TINY, image_size=_SIZE, tuner=tuner)
    except ConfigError as error:
        raise CheckSkipped(
            f"it does not take {TINY.name}, the model of the checks: {error}"
        ) from error


def _planes(channels: int) -> tuple[Tensor, Tensor]:
    """Return (2, C, S, S) noise that is 0 in padding, and the (2, S, S) content, False there."""
    content = torch.ones(2, _SIZE, _SIZE, dtype=torch.bool)
    content[:, -8:] = False
    noise = torch.randn(
        2, channels, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0)
    )
    return noise * content[:, None], content


def _expect_gradients(network: SimMAT, channels: int, part: nn.Module) -> None:
    """Fail for parameters of a part that train and get no finite gradient from prompts of every kind."""
    kinds = prompt_kinds(cast(FoundationModel, network.foundation), _SIZE)
    backpropagate(network, *_planes(channels), kinds.values())
    trains = [
        (name, parameter.grad)
        for name, parameter in part.named_parameters()
        if parameter.requires_grad
    ]
    if silent := [
        name
        for name, gradient in trains
        if gradient is None or not bool(gradient.isfinite().all())
    ]:
        raise CheckFailed(
            f"of {channels} channels these train without a finite gradient: {few_of(silent)}",
            "use every parameter in `forward`, make buffers of tensors that are fixed, and leave out those of "
            "targets.frozen",
        )


def layer_gives_its_output(case: PartCase) -> None:
    """The layer is built with its default options, and gives what the `output` of its spec says."""
    for count, network in layer_networks(case).items():
        planes, content = _planes(count)
        backbone = cast(FoundationModel, network.foundation).backbone
        with torch.no_grad():
            embedded = tuple(backbone.embed(images(2, _SIZE)).shape)
            found = (
                network.mat(planes)
                if case.spec.output == "image"
                else network.mat(planes, content)
            )
        parts = found if case.spec.output == "image+features" else (found,)
        image, features = (2, 3, _SIZE, _SIZE), embedded
        expected = {
            "image": (image,),
            "features": (features,),
            "image+features": (image, features),
        }[case.spec.output]
        shapes = tuple(
            tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            for part in parts
        )
        if shapes != expected or not all(bool(part.isfinite().all()) for part in parts):
            raise CheckFailed(
                f"of {count} channels it makes {shapes}, and output is {case.spec.output!r}: {expected}, all finite",
                "return tensors of these shapes: the image of the model, or what `backbone.embed` gives",
            )


def layer_is_seeded(case: PartCase) -> None:
    """The same seed gives the same weights, and torch's own random state is not changed."""
    before = torch.random.get_rng_state()
    one, two = (layer_networks(case) for _ in range(2))
    for count, network in one.items():
        check_seeded(before, network.mat, two[count].mat)


def layer_trains_with_a_gradient(case: PartCase) -> None:
    """Every parameter of the layer that trains gets a finite gradient."""
    for count, network in layer_networks(case).items():
        _expect_gradients(network, count, network.mat)


def layer_survives_safetensors(case: PartCase) -> None:
    """The state dict, written to safetensors and loaded into a layer of another seed, gives the same answers."""
    others = layer_networks(case, seed=1)
    for count, network in layer_networks(case).items():
        planes, content = _planes(count)
        other = others[count]
        other.foundation.load_state_dict(network.foundation.state_dict())
        copy_state(network.mat, other.mat, case.folder / "layer.safetensors")
        with torch.no_grad():
            one, two = (
                each.eval().encode(planes, content).levels for each in (network, other)
            )
        if not all(torch.equal(a, b) for a, b in zip(one, two, strict=True)):
            raise CheckFailed(
                "a layer with the loaded state answers differently", KEEP_IN_STATE
            )


def tuner_leaves_the_model_as_it_was(case: PartCase) -> None:
    """At step 0 the model answers as before; a tuner whose method says otherwise is skipped."""
    plain, tuned = (
        cast(FoundationModel, tuned_network(each).foundation)
        for each in ("frozen", case.spec)
    )
    pictures, click = images(2, _SIZE), prompt_kinds(plain, _SIZE)[CLICK]
    before, after = (predict(each, pictures, click).logits for each in (plain, tuned))
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
        raise CheckSkipped(
            f"the logits change by {float((before - after).abs().max()):.3g} before any training; right only where the "
            "method is defined so, else start new branches at zero"
        )


def tuner_is_seeded(case: PartCase) -> None:
    """The same seed gives the same weights, and torch's own random state is not changed."""
    before = torch.random.get_rng_state()
    one, two = (tuned_network(case.spec).foundation for _ in range(2))
    check_seeded(before, one, two)


def tuner_trains_with_a_gradient(case: PartCase) -> None:
    """Every parameter that the tuner lets train gets a finite gradient, and none of `targets.frozen` trains."""
    network = tuned_network(case.spec)
    model: nn.Module = network.foundation
    trains = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    if wrong := [
        name
        for name in trains
        if any(re.fullmatch(pattern, name) for pattern in TINY.targets.frozen)
    ]:
        raise CheckFailed(
            f"it trains what targets.frozen keeps fixed: {few_of(wrong)}",
            "leave those out",
        )
    _expect_gradients(network, 3, model)

"""Checks of a foundation model: its masks for prompts, its weights, and its gradients under each tuner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from simmat.errors import ConfigError, WeightsError, few_of
from simmat.foundation import FoundationModel, MaskPrediction, PromptBatch
from simmat.io.weights import find_weights, sha256_of
from simmat.model import SimMAT
from simmat.nn.tuners import set_train_mode
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.foundation_spec import FoundationCase
from simmat.testing.networks import apply_tuner, build_network, square_loss

CLICK, BOX, CORRECTED = "a click", "a box", "two clicks and a mask input"
"""Kinds of prompts; the fourth is a box with a click and a mask input."""

_TOLERANCE = 1e-3  # relative to the largest number: float32 sums in another order differ by less
_PLACES = "read point_coords and boxes, in pixels of the square input, of every prompt"
_LABELS = "read point_labels: 1 is on the object, 0 is not"
KEEP_IN_STATE = "register every tensor that decides an answer as a parameter or a persistent buffer"
_SEEDED = "draw every random weight from a torch.Generator of the seed, or under torch.random.fork_rng"


def images(count: int, size: int) -> Tensor:
    """Return (count, 3, S, S) normalized noise; image i does not depend on how many follow."""
    return torch.stack([torch.randn(3, size, size, generator=torch.Generator().manual_seed(i)) for i in range(count)])


def predict(model: FoundationModel, pictures: Tensor, prompts: PromptBatch) -> MaskPrediction:
    """Encode images and decode prompts, without gradient."""
    with torch.no_grad():
        return model.decoder.decode(model.backbone.encode(model.backbone.embed(pictures)), prompts)


def prompt_kinds(model: FoundationModel, size: int) -> dict[str, PromptBatch]:
    """Return K = 3 prompts on two images of every kind that training uses: clicks, boxes, corrections."""
    click = PromptBatch(
        image_index=torch.tensor((1, 0, 1)),  # of two images, not in their order
        point_coords=torch.tensor([[[0.3, 0.4]], [[0.6, 0.2]], [[0.5, 0.8]]]) * size,
        point_labels=torch.ones(3, 1, dtype=torch.int64),
    )
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.5], [0.2, 0.5, 0.7, 0.9]]) * size
    box = replace(click, point_coords=click.point_coords[:, :0], point_labels=click.point_labels[:, :0], boxes=boxes)
    low = predict(model, images(2, size), click).logits[:, :1]
    corrected = replace(
        click,
        point_coords=torch.cat([click.point_coords, size - click.point_coords], dim=1),
        point_labels=torch.tensor([[1, 0], [1, 1], [1, -1]]),
        mask_input=low,
    )
    box_corrected = replace(click, point_labels=click.point_labels * 0, boxes=boxes, mask_input=low)
    return {CLICK: click, BOX: box, CORRECTED: corrected, "a box, a click and a mask input": box_corrected}


def levels_have_their_strides(case: FoundationCase) -> None:
    """The backbone gives one level or more, finest first, each (B, D, S/stride, S/stride)."""
    embedding, size = case.embedding(), case.image_size
    shapes = [tuple(level.shape) for level in embedding.levels]
    if not shapes or len(shapes) != len(embedding.strides):
        raise CheckFailed(
            f"{len(shapes)} levels, {len(embedding.strides)} strides", "give each level its stride, and at least one"
        )
    if list(embedding.strides) != sorted(embedding.strides):
        raise CheckFailed(f"the strides are {embedding.strides}", "order the levels from fine to coarse")
    for shape, stride in zip(shapes, embedding.strides, strict=True):
        side = size / stride  # a stride may be a fraction
        if len(shape) != 4 or shape[0] != 1 or any(abs(found - side) > 1e-6 for found in shape[2:]):
            raise CheckFailed(
                f"the level of stride {stride} is {shape} for one input of {size} px",
                f"a level is (B, D, S/stride, S/stride): (1, D, {side:g}, {side:g})",
            )


def masks_cover_the_input(case: FoundationCase) -> None:
    """Clicks, boxes and mask inputs are each answered with (K, M, h, w) logits and (K, M) predicted IoU."""
    for kind, prompts in prompt_kinds(case.model, case.image_size).items():
        found = predict(case.model, images(2, case.image_size), prompts)
        logits, iou = tuple(found.logits.shape), tuple(found.iou.shape)
        count = len(prompts.image_index)
        if len(logits) != 4 or logits[0] != count or logits[2] != logits[3] or iou != logits[:2]:
            raise CheckFailed(
                f"for {count} prompts ({kind}) the logits are {logits} and iou {iou}",
                "logits are (K, M, h, w) over the whole square input, iou (K, M)",
            )
        if not bool(found.logits.isfinite().all() and found.iou.isfinite().all()):
            raise CheckFailed(f"for prompts ({kind}) some logits or iou are not finite", "look at the decoder")


def same_seed_same_answers(case: FoundationCase) -> None:
    """The same seed gives the same weights and answers, bit for bit, and torch's own random state is not changed."""
    before = torch.random.get_rng_state()
    one, two = case.build(3), case.build(3)
    if not torch.equal(before, torch.random.get_rng_state()):
        raise CheckFailed("building a model changed torch's random state", _SEEDED)
    for name, tensor in one.state_dict().items():
        if not torch.equal(tensor, two.state_dict()[name]):
            raise CheckFailed(f"two models of seed 3 differ in {name}", _SEEDED)
    pictures, click = images(2, case.image_size), prompt_kinds(one, case.image_size)[CLICK]
    first, again, other = (predict(model, pictures, click) for model in (one, one, two))
    if not _equal(first, again):
        raise CheckFailed("one model answered the same prompts in two ways", "return the model in eval mode")
    if not _equal(first, other):
        raise CheckFailed("two models of seed 3 answered differently", "keep everything random in the state dict")


def batch_of_two_equals_two_singles(case: FoundationCase) -> None:
    """An image is answered the same alone and in a batch, and prompts in any order."""
    model, size = case.model, case.image_size
    pictures = images(2, size)
    for kind, prompts in prompt_kinds(model, size).items():
        together = predict(model, pictures, prompts)
        for row, index in enumerate(prompts.image_index.tolist()):
            alone = predict(model, pictures[index : index + 1], _only(prompts, row))
            for what, one, other in (
                ("logit", together.logits[row], alone.logits[0]),
                ("predicted IoU", together.iou[row], alone.iou[0]),
            ):
                if (difference := _difference(one, other)) > _TOLERANCE:
                    raise CheckFailed(
                        f"prompt {row} ({kind}) on image {index}, in a batch and alone, differs by {difference:.1%} of "
                        f"the largest {what}",
                        "mix nothing over the batch, and read image_index: it may come in any order",
                    )


def prompts_decide_the_answer(case: FoundationCase) -> None:
    """The answer changes with a click, its label or a box, and does not change with a point of label -1."""
    model, size = case.model, case.image_size
    pictures, kinds = images(2, size), prompt_kinds(model, size)
    click, box, corrected = kinds[CLICK], kinds[BOX], kinds[CORRECTED]
    assert box.boxes is not None
    one, two = click.point_coords, corrected.point_coords
    moved = replace(corrected, point_coords=torch.cat([two[:, :1], (two[:, 1:] + 0.3 * size) % size], dim=1))
    changes: list[tuple[str, PromptBatch, PromptBatch, str]] = [
        ("a click moves", click, replace(click, point_coords=size - one), _PLACES),
        ("a click's label turns", click, replace(click, point_labels=1 - click.point_labels), _LABELS),
        ("the second click moves", corrected, moved, _PLACES),
        ("a box moves", box, replace(box, boxes=size - box.boxes[:, [2, 3, 0, 1]]), _PLACES),
    ]
    padded = [row for row, label in enumerate(corrected.point_labels[:, 1].tolist()) if label < 0]
    for what, before, after, advice in changes:
        first, second = (predict(model, pictures, prompts) for prompts in (before, after))
        for row in range(len(one)):
            if after is moved and row in padded:
                continue
            if torch.equal(first.logits[row], second.logits[row]):
                raise CheckFailed(f"{what} and the logits do not change", advice)
    first, second = (predict(model, pictures, prompts) for prompts in (corrected, moved))
    for row in padded:
        difference = max(
            _difference(second.logits[row], first.logits[row]), _difference(second.iou[row], first.iou[row])
        )
        if difference > _TOLERANCE:
            raise CheckFailed(
                f"a point of label -1 moves and the answer changes by {difference:.1%}",
                "ignore points of label -1: they pad prompts that have fewer points than others of the batch",
            )


def copy_state(source: nn.Module, target: nn.Module, file: Path) -> None:
    """Write a state dict to safetensors, and load it into another module of the same kind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file({name: t.detach().contiguous().clone() for name, t in source.state_dict().items()}, file)
        target.load_state_dict(load_file(file))
    except Exception as error:
        raise CheckFailed(
            f"the state dict cannot be written and loaded: {type(error).__name__}: {error}",
            "keep tensors alone in the state dict, of types that safetensors knows",
        ) from error


def state_survives_safetensors(case: FoundationCase) -> None:
    """The state dict, written to safetensors and loaded into a model of another seed, gives the same answers."""
    one, other = case.build(1), case.build(2)
    copy_state(cast(nn.Module, one), cast(nn.Module, other), case.folder / "state.safetensors")
    pictures, click = images(1, case.image_size), _only(prompt_kinds(one, case.image_size)[CLICK], 0)
    if not _equal(predict(one, pictures, click), predict(other, pictures, click)):
        raise CheckFailed("a model with the loaded state answers differently", KEEP_IN_STATE)


def weights_are_the_ones_described(case: FoundationCase) -> None:
    """The weight file, where it is present, has the sha256 of the spec, and the model loads it."""
    file = case.spec.weights
    if file is None:
        raise CheckSkipped("the model is random from its seed")
    known = file.sha256 or file.url or file.path is not None  # a hub's publisher, or the user, may change the file
    if known and (len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef")):
        raise CheckFailed(f"sha256 is {file.sha256!r}", "give the 64 hex digits of `sha256sum FILE`")
    try:
        path = find_weights(case.spec)
    except WeightsError as error:
        if file.path is None:
            raise CheckSkipped(f"{file.filename} is not here") from error
        raise
    assert path is not None  # the spec has weights
    case.require_values()
    if known and (found := sha256_of(path)) != file.sha256:
        raise CheckFailed(
            f"{path} has sha256 {found}, the spec says {file.sha256}", "describe the file that is shipped"
        )
    case.build(weights=path)


def lora_changes_nothing_at_step_0(case: FoundationCase) -> None:
    """With LoRA applied and nothing trained, the model answers as before."""
    if not case.spec.targets.lora:
        raise CheckSkipped("the model names no layer for LoRA")
    plain, pictures = case.model, images(2, case.image_size)
    lora = cast(FoundationModel, apply_tuner(cast(nn.Module, plain), case.spec, "lora"))
    for kind, prompts in prompt_kinds(plain, case.image_size).items():
        before, after = predict(plain, pictures, prompts), predict(lora, pictures, prompts)
        for what, one, other in (("logits", before.logits, after.logits), ("predicted IoU", before.iou, after.iou)):
            if not torch.allclose(one, other, rtol=1e-5, atol=1e-5):
                raise CheckFailed(
                    f"{what} ({kind}) changed by {float((one - other).abs().max()):.3g} under LoRA that adds zero",
                    "call the layers, and do not look at their class: LoRA replaces them by a subclass",
                )


def gradient_reaches_the_mat(case: FoundationCase) -> None:
    """Every weight of the MAT before the model gets a gradient that is finite and not all zero."""
    case.require_values()
    network = _network(case, "frozen")
    _backward(network, case)
    for name, parameter in network.mat.named_parameters():
        gradient = parameter.grad
        if gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any()):
            state = "no gradient" if gradient is None else "a gradient of zero" if not gradient.any() else "NaN"
            raise CheckFailed(
                f"the MAT's {name} gets {state}",
                "run embed and encode without no_grad or detach, and use every pixel of the input",
            )


def what_trains_has_a_gradient(case: FoundationCase) -> None:
    """Everything that a tuner trains gets a gradient from clicks, boxes and corrections together, and nothing else."""
    case.require_values()
    for tuner in ("frozen", *_targeted_tuners(case), "decoder", "full"):
        try:
            network = _network(case, tuner)
        except ConfigError:  # the tuner refuses the model, as it may
            continue
        trains = {name for name, p in network.named_parameters() if p.requires_grad}
        _backward(network, case)
        moved = {name for name, p in network.named_parameters() if p.grad is not None}
        if frozen := moved - trains:
            raise CheckFailed(
                f"under tuner {tuner!r} what is frozen gets a gradient: {few_of(sorted(frozen))}",
                "never set requires_grad in the model; tuners do",
            )
        if silent := trains - moved:
            raise CheckFailed(
                f"under tuner {tuner!r} these train without a gradient: {few_of(sorted(silent))}",
                "leave out parameters that nothing uses, call layers instead of reading their weights, "
                "or name what must not move in targets.never",
            )


def _equal(one: MaskPrediction, other: MaskPrediction) -> bool:
    return torch.equal(one.logits, other.logits) and torch.equal(one.iou, other.iou)


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest number."""
    return float((one - other).abs().max()) / max(float(other.abs().max()), 1e-6)


def _only(prompts: PromptBatch, row: int) -> PromptBatch:
    """Return one prompt, on the only image."""
    part = slice(row, row + 1)
    return PromptBatch(
        torch.zeros(1, dtype=torch.int64),
        prompts.point_coords[part],
        prompts.point_labels[part],
        None if prompts.boxes is None else prompts.boxes[part],
        None if prompts.mask_input is None else prompts.mask_input[part],
    )


def _targeted_tuners(case: FoundationCase) -> list[str]:
    """Return the tuners for which the model names targets."""
    targets = case.spec.targets
    needs = {"lora": targets.lora, "adapter": targets.adapters, "linear": targets.embed}
    return [tuner for tuner, named in needs.items() if named]


def _network(case: FoundationCase, tuner: str) -> SimMAT:
    """Return the paper's MAT before the model, tuned; raise ConfigError where the tuner refuses the model."""
    return build_network(case.spec, tuner=tuner, image_size=case.image_size, channels=2)


def _backward(network: SimMAT, case: FoundationCase) -> None:
    """Backpropagate the loss of prompts of every kind."""
    set_train_mode(network)
    size = case.image_size
    planes, content = images(2, size)[:, :2], torch.ones(2, size, size, dtype=torch.bool)
    total = torch.zeros(())
    for prompts in prompt_kinds(case.model, size).values():
        total = total + square_loss(network, planes, content, prompts)
    if total.requires_grad:
        torch.autograd.backward(total)

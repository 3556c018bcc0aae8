"""Foundation models: what they answer to prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from simmat.errors import WeightsError
from simmat.foundation import FoundationModel, MaskPrediction, PromptBatch
from simmat.io.weights import find_weights, sha256_of
from simmat.testing.checks import CheckFailed, CheckSkipped
from simmat.testing.foundation_spec import FoundationCase

_ORDER = (1, 0, 1)  # about two images, not in their order


def images(count: int, size: int) -> Tensor:
    """Return (count, 3, S, S) normalized noise; image i does not depend on how many follow."""
    return torch.stack([torch.randn(3, size, size, generator=torch.Generator().manual_seed(i)) for i in range(count)])


def answer(model: FoundationModel, pictures: Tensor, prompts: PromptBatch) -> MaskPrediction:
    """Ask a model, without gradient."""
    with torch.no_grad():
        return model.decoder.decode(model.backbone.encode(model.backbone.embed(pictures)), prompts)


def prompt_kinds(model: FoundationModel, size: int) -> dict[str, PromptBatch]:
    """Return K = 3 prompts about two images of every kind that training asks with: clicks, boxes, corrections."""
    click = PromptBatch(
        image_index=torch.tensor(_ORDER),
        point_coords=torch.tensor([[[0.3, 0.4]], [[0.6, 0.2]], [[0.5, 0.8]]]) * size,
        point_labels=torch.ones(3, 1, dtype=torch.int64),
    )
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.5], [0.2, 0.5, 0.7, 0.9]]) * size
    box = PromptBatch(click.image_index, click.point_coords[:, :0], click.point_labels[:, :0], boxes)
    low = answer(model, images(2, size), click).logits[:, :1]
    corrected = PromptBatch(
        click.image_index,
        torch.cat([click.point_coords, size - click.point_coords], dim=1),
        torch.tensor([[1, 0], [1, 1], [1, -1]]),
        mask_input=low,
    )
    box_corrected = PromptBatch(click.image_index, click.point_coords, click.point_labels * 0, boxes, low)
    return {
        "a click": click,
        "a box": box,
        "two clicks and the answer before": corrected,
        "a box, a click and the answer before": box_corrected,
    }


_TOLERANCE = 1e-3  # of the largest number: float32 sums in another order differ by less


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
        found = answer(case.model, images(2, case.image_size), prompts)
        logits, iou = tuple(found.logits.shape), tuple(found.iou.shape)
        count = len(prompts.image_index)
        if len(logits) != 4 or logits[0] != count or logits[2] != logits[3] or iou != logits[:2]:
            raise CheckFailed(
                f"{count} prompts ({kind}) were answered with logits {logits} and iou {iou}",
                "logits are (K, M, h, w) over the whole square input, iou (K, M)",
            )
        if not bool(found.logits.isfinite().all() and found.iou.isfinite().all()):
            raise CheckFailed(f"prompts ({kind}) were answered with numbers that are not finite", "look at the decoder")


def same_seed_same_answers(case: FoundationCase) -> None:
    """The same seed gives the same weights and answers, bit for bit, and torch's own random state is left alone."""
    before = torch.random.get_rng_state()
    one, two = case.build(3), case.build(3)
    if not torch.equal(before, torch.random.get_rng_state()):
        raise CheckFailed("building a model moved torch's random state", _SEEDED)
    for name, tensor in one.state_dict().items():
        if not torch.equal(tensor, two.state_dict()[name]):
            raise CheckFailed(f"two models of seed 3 differ in {name}", _SEEDED)
    picture, ask = images(2, case.image_size), prompt_kinds(one, case.image_size)["a click"]
    first, again, other = (answer(model, picture, ask) for model in (one, one, two))
    if not _equal(first, again):
        raise CheckFailed("one model answered the same question in two ways", "return the model in eval mode")
    if not _equal(first, other):
        raise CheckFailed("two models of seed 3 answered differently", "keep everything random in the state dict")


def batch_of_two_equals_two_singles(case: FoundationCase) -> None:
    """An image is answered the same alone and in a batch, and prompts in any order."""
    model, size = case.model, case.image_size
    pictures = images(2, size)
    for kind, prompts in prompt_kinds(model, size).items():
        together = answer(model, pictures, prompts)
        for row, index in enumerate(prompts.image_index.tolist()):
            alone = answer(model, pictures[index : index + 1], _only(prompts, row))
            for what, one, other in (
                ("logit", together.logits[row], alone.logits[0]),
                ("predicted IoU", together.iou[row], alone.iou[0]),
            ):
                if (apart := _apart(one, other)) > _TOLERANCE:
                    raise CheckFailed(
                        f"prompt {row} ({kind}) about image {index} is answered {apart:.1%} of the largest {what} "
                        "apart from when image and prompt stand alone",
                        "mix nothing over the batch, and read image_index: it may come in any order",
                    )


def prompts_decide_the_answer(case: FoundationCase) -> None:
    """The answer changes where a click moves or its label turns, or a box moves, and not by a point of label -1."""
    model, size = case.model, case.image_size
    pictures, kinds = images(2, size), prompt_kinds(model, size)
    click, box, corrected = (kinds[kind] for kind in ("a click", "a box", "two clicks and the answer before"))
    one, two = click.point_coords, corrected.point_coords
    elsewhere = torch.cat([two[:, :1], (two[:, 1:] + 0.3 * size) % size], dim=1)
    real = [row for row, label in enumerate(corrected.point_labels[:, 1].tolist()) if label >= 0]
    changes: list[tuple[str, PromptBatch, PromptBatch, list[int], str]] = [
        ("a click moves", click, replace(click, point_coords=size - one), [0, 1, 2], _PLACES),
        ("a click's label turns", click, replace(click, point_labels=1 - click.point_labels), [0, 1, 2], _LABELS),
        ("the second click moves", corrected, replace(corrected, point_coords=elsewhere), real, _PLACES),
        ("a box moves", box, replace(box, boxes=_mirrored(box.boxes, size)), [0, 1, 2], _PLACES),
    ]
    for what, before, after, rows, advice in changes:
        first, second = (answer(model, pictures, prompts).logits for prompts in (before, after))
        for row in rows:
            if torch.equal(first[row], second[row]):
                raise CheckFailed(f"{what} and the logits stay as they were, bit for bit", advice)
    moved, kept = (answer(model, pictures, p) for p in (replace(corrected, point_coords=elsewhere), corrected))
    for row in set(range(len(two))) - set(real):
        apart = max(_apart(moved.logits[row], kept.logits[row]), _apart(moved.iou[row], kept.iou[row]))
        if apart > _TOLERANCE:
            raise CheckFailed(
                f"a point of label -1 moves and the answer with it, by {apart:.1%}",
                "leave points of label -1 out: they fill up prompts of fewer points than others of the batch",
            )


def state_survives_safetensors(case: FoundationCase) -> None:
    """The state dict, written to safetensors and loaded into a model of another seed, gives the same answers."""
    size = case.image_size
    one, other = case.build(1), case.build(2)
    file = case.folder / "state.safetensors"
    case.folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file({name: t.detach().contiguous().clone() for name, t in one.state_dict().items()}, file)
        cast(nn.Module, other).load_state_dict(load_file(file))
    except Exception as error:
        raise CheckFailed(
            f"the state dict cannot be written and loaded: {type(error).__name__}: {error}",
            "keep tensors alone in the state dict, of types that safetensors knows",
        ) from error
    ask, picture = prompt_kinds(one, size)["a click"], images(1, size)
    ask = _only(ask, 0)
    if not _equal(answer(one, picture, ask), answer(other, picture, ask)):
        raise CheckFailed(
            "a model with the loaded state answers differently",
            "register every tensor that decides an answer as a parameter or a persistent buffer",
        )


def weights_are_the_ones_described(case: FoundationCase) -> None:
    """The weight file, where it is here, has the sha256 of the spec, and the model loads it."""
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


_PLACES = "read point_coords and boxes, in pixels of the square input, of every prompt"
_LABELS = "read point_labels: 1 is on the object, 0 is not"
_SEEDED = "draw every random weight from a torch.Generator of the seed, or under torch.random.fork_rng"


def _equal(one: MaskPrediction, other: MaskPrediction) -> bool:
    return torch.equal(one.logits, other.logits) and torch.equal(one.iou, other.iou)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, as a share of the largest number."""
    return float((one - other).abs().max()) / max(float(other.abs().max()), 1e-6)


def _mirrored(boxes: Tensor | None, size: int) -> Tensor:
    assert boxes is not None  # of the kind "a box"
    return size - boxes[:, [2, 3, 0, 1]]


def _only(prompts: PromptBatch, row: int) -> PromptBatch:
    """Return one prompt, about the only image there is."""

    def pick(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[row : row + 1]

    return PromptBatch(
        torch.zeros(1, dtype=torch.int64),
        prompts.point_coords[row : row + 1],
        prompts.point_labels[row : row + 1],
        pick(prompts.boxes),
        pick(prompts.mask_input),
    )

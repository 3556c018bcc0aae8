"""Checks of a foundation model: its spec, its masks for prompts, its weights, and its gradients under each tuner."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from simmat.assemble import build_foundation, check_image_size
from simmat.errors import ConfigError, WeightsError, few_of
from simmat.foundation import FoundationModel, MaskPrediction, PromptBatch
from simmat.io.weights import find_weights, sha256_of
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import import_from_string
from simmat_testing.checks import CheckFailed, CheckSkipped
from simmat_testing.networks import TUNER, backpropagate, build_network

MIN_SIZE = 64
"""Models are built for their smallest input of at least this side, in pixels, unless another is given."""
MAX_PARAMETERS = 50_000_000
"""Larger models are built on torch's meta device, without values, unless the slow checks run."""
CLICK, BOX, CORRECTED = "a click", "a box", "two clicks and a mask input"
"""Kinds of prompts; the fourth is a box with a click and a mask input."""

# relative to the largest number: float32 sums in another order differ by less
_TOLERANCE = 1e-3
KEEP_IN_STATE = (
    "register every tensor that decides an answer as a parameter or a persistent buffer"
)
SEEDED = "draw every random weight from the generator or seed that is given, under torch.random.fork_rng if need be"


class FoundationCase:
    """A foundation model, as the checks see it.

    Attributes:
        image_size: S of the models that are built.
        full: build large models with values too.
    """

    def __init__(
        self,
        spec: FoundationSpec,
        folder: Path,
        *,
        image_size: int | None = None,
        full: bool = False,
    ) -> None:
        self.spec = spec
        self.folder = folder
        multiple = max(spec.size_multiple, 1)
        self.image_size = image_size or -(-MIN_SIZE // multiple) * multiple
        self.full = full

    def build(self, seed: int = 0, *, weights: Path | None = None) -> FoundationModel:
        """Build a model with random weights, or those of a file; a large one only with `full`."""
        if self._is_large:
            raise CheckSkipped(
                f"more than {MAX_PARAMETERS / 1e6:.0f} M parameters: run with --full (full = True)"
            )
        return self._build(seed, weights)

    @cached_property
    def model(self) -> FoundationModel:
        """A model of seed 0, not to be changed."""
        return self.build()

    @cached_property
    def skeleton(self) -> nn.Module:
        """The model with its names and shapes; a large one has no values, unless `full`."""
        return cast(nn.Module, self._on_meta if self._is_large else self.model)

    @cached_property
    def _is_large(self) -> bool:
        parameters = [] if self._on_meta is None else self._on_meta.parameters()
        return not self.full and sum(p.numel() for p in parameters) > MAX_PARAMETERS

    @cached_property
    def _on_meta(self) -> nn.Module | None:
        """The model on torch's meta device, without values; None if its builder does not work there."""
        try:
            with torch.device("meta"):
                model = cast(nn.Module, self._build(0, None))
                return model if all(p.is_meta for p in model.parameters()) else None
        except Exception:
            return None

    def _build(self, seed: int, weights: Path | None) -> FoundationModel:
        model = build_foundation(
            self.spec, image_size=self.image_size, weights=weights, seed=seed
        )
        if not all(
            hasattr(model, name)
            for name in ("backbone", "decoder", "named_parameters", "state_dict")
        ):
            raise CheckFailed(
                f"{self.spec.build} returned a {type(model).__name__}",
                "return an nn.Module with `backbone` and `decoder`, see simmat.foundation.FoundationModel",
            )
        return model


def pixel_statistics_are_counts(case: FoundationCase) -> None:
    """`pixel_mean` and `pixel_std` are those of R, G, B on the scale of 0 to 255; 0 and 1 leave it to the network."""
    mean, std = tuple(case.spec.pixel_mean), tuple(case.spec.pixel_std)
    if set(mean) == {0.0} and set(std) == {1.0}:
        return  # the network scales 0 to 255 itself
    numbers = (*mean, *std)
    if (
        len(mean) != 3
        or len(std) != 3
        or min(std) <= 0
        or not 1.5 < max(numbers) <= 255
        or min(numbers) < 0
    ):
        raise CheckFailed(
            f"pixel_mean is {mean}, pixel_std {std}",
            "give three numbers each, in counts of 0 to 255, each std above 0; multiply those of 0 to 1 by 255",
        )


def tuning_targets_match(case: FoundationCase) -> None:
    """Every pattern of the tuning targets matches, and what it matches is what tuners can work on."""
    targets = case.spec.targets
    modules = [name for name, _ in case.skeleton.named_modules()]
    parameters = [name for name, _ in case.skeleton.named_parameters()]
    for kind in (
        "lora",
        "spatial_layers",
        "adapters",
        "attention",
        "embed",
        "frozen",
        "newly_initialized",
    ):
        names = (
            parameters if kind in ("embed", "frozen", "newly_initialized") else modules
        )
        for pattern in getattr(targets, kind):
            if not any(re.fullmatch(pattern, name) for name in names):
                raise CheckFailed(
                    f"targets.{kind}: {pattern!r} matches none of the {len(names)} names",
                    f"a pattern must match a whole name, which begins with backbone. or decoder., as {names[-1]}",
                )
    works_on = {
        "lora": "lora",
        "conv-lora": "spatial_layers",
        "adapter": "adapters",
        "prompt": "attention",
        "linear": "embed",
    }
    for tuner, kind in works_on.items():
        if getattr(targets, kind):
            try:
                _tuned(case.skeleton, case.spec, tuner)
            except ConfigError as error:
                raise CheckFailed(
                    f"targets.{kind} names what tuner {tuner!r} cannot work on: {error}",
                    "see simmat.plugin_specs.TuningTargets for what each pattern must name",
                ) from error


def levels_have_their_strides(case: FoundationCase) -> None:
    """The backbone gives one level or more, finest first, each (B, D, S/stride, S/stride); the native size fits."""
    check_image_size(case.spec, case.spec.image_size)
    size, backbone = case.image_size, case.model.backbone
    with torch.no_grad():
        embedding = backbone.encode(backbone.embed(images(1, size)))
    shapes = [tuple(level.shape) for level in embedding.levels]
    # a stride may be a fraction
    expected = [(1, "D", size / stride, size / stride) for stride in embedding.strides]
    fits = [
        len(found) == 4 and (found[0], *found[2:]) == (1, *side[2:])
        for found, side in zip(shapes, expected, strict=False)
    ]
    if (
        not all(fits)
        or not 0 < len(shapes) == len(expected)
        or list(embedding.strides) != sorted(embedding.strides)
    ):
        raise CheckFailed(
            f"for one input of {size} px the levels are {shapes} and the strides {embedding.strides}",
            f"give at least one level and each its stride, from fine to coarse: {expected}",
        )


def masks_cover_the_input(case: FoundationCase) -> None:
    """Clicks, boxes and mask inputs are each answered with (K, M, h, w) logits and (K, M) predicted IoU."""
    for kind, prompts in prompt_kinds(case.model, case.image_size).items():
        found = predict(case.model, images(2, case.image_size), prompts)
        logits, iou = tuple(found.logits.shape), tuple(found.iou.shape)
        count = len(prompts.image_index)
        if (
            len(logits) != 4
            or logits[0] != count
            or logits[2] != logits[3]
            or iou != logits[:2]
        ):
            raise CheckFailed(
                f"for {count} prompts ({kind}) the logits are {logits} and iou {iou}",
                "logits are (K, M, h, w) over the whole square input, iou (K, M)",
            )
        if not bool(found.logits.isfinite().all() and found.iou.isfinite().all()):
            raise CheckFailed(
                f"for prompts ({kind}) some logits or iou are not finite",
                "look at the decoder",
            )


def same_seed_same_answers(case: FoundationCase) -> None:
    """The same seed gives the same weights and answers, bit for bit, and torch's own random state is not changed."""
    before = torch.random.get_rng_state()
    one, two = case.build(3), case.build(3)
    check_seeded(before, cast(nn.Module, one), cast(nn.Module, two))
    pictures, click = (
        images(2, case.image_size),
        prompt_kinds(one, case.image_size)[CLICK],
    )
    first, again, other = (predict(model, pictures, click) for model in (one, one, two))
    if not _equal(first, again):
        raise CheckFailed(
            "one model gave two answers to the same prompts",
            "return the model in eval mode",
        )
    if not _equal(first, other):
        raise CheckFailed(
            "two models of seed 3 answered differently",
            "keep everything random in the state dict",
        )


def batch_of_two_equals_two_singles(case: FoundationCase) -> None:
    """An image is answered the same alone and in a batch, and prompts in any order."""
    model, size = case.model, case.image_size
    pictures = images(2, size)
    for kind, prompts in prompt_kinds(model, size).items():
        together = predict(model, pictures, prompts)
        for row, index in enumerate(prompts.image_index.tolist()):
            alone = predict(model, pictures[index : index + 1], _only(prompts, row))
            difference = _difference(
                MaskPrediction(together.logits[row], together.iou[row]), alone
            )
            if difference > _TOLERANCE:
                raise CheckFailed(
                    f"prompt {row} ({kind}) on image {index}, in a batch and alone, differs by {difference:.1%}",
                    "mix nothing over the batch, and read image_index: it may come in any order",
                )


def prompts_decide_the_answer(case: FoundationCase) -> None:
    """The answer changes with a click, its label or a box, and does not change with a point of label -1."""
    model, size = case.model, case.image_size
    pictures, kinds = images(2, size), prompt_kinds(model, size)
    click, box, corrected = kinds[CLICK], kinds[BOX], kinds[CORRECTED]
    assert box.boxes is not None
    one, two = click.point_coords, corrected.point_coords
    moved = replace(
        corrected,
        point_coords=torch.cat([two[:, :1], (two[:, 1:] + 0.3 * size) % size], dim=1),
    )
    for what, before, after in (
        ("a click moves", click, replace(click, point_coords=size - one)),
        (
            "a click's label turns",
            click,
            replace(click, point_labels=1 - click.point_labels),
        ),
        ("the second click moves", corrected, moved),
        ("a box moves", box, replace(box, boxes=size - box.boxes[:, [2, 3, 0, 1]])),
    ):
        first, second = (
            predict(model, pictures, prompts) for prompts in (before, after)
        )
        for row in range(len(one)):
            difference = _difference(
                *(MaskPrediction(p.logits[row], p.iou[row]) for p in (second, first))
            )
            if after is moved and corrected.point_labels[row, 1] < 0:
                if difference > _TOLERANCE:
                    raise CheckFailed(
                        f"a point of label -1 moves and the answer changes by {difference:.1%}",
                        "ignore points of label -1: they pad prompts that have fewer points than others of the batch",
                    )
            elif torch.equal(first.logits[row], second.logits[row]):
                raise CheckFailed(
                    f"{what} and the logits do not change",
                    "read point_coords and boxes, in pixels of the square input, and point_labels, 1 on the object and "
                    "0 not, of every prompt",
                )


def state_survives_safetensors(case: FoundationCase) -> None:
    """The state dict, written to safetensors and loaded into a model of another seed, gives the same answers."""
    one, other = case.build(1), case.build(2)
    copy_state(
        cast(nn.Module, one), cast(nn.Module, other), case.folder / "state.safetensors"
    )
    pictures, click = (
        images(1, case.image_size),
        _only(prompt_kinds(one, case.image_size)[CLICK], 0),
    )
    if not _equal(predict(one, pictures, click), predict(other, pictures, click)):
        raise CheckFailed(
            "a model with the loaded state answers differently", KEEP_IN_STATE
        )


def weights_are_the_ones_described(case: FoundationCase) -> None:
    """The weight file, where it is present, has the sha256 of the spec, and the model loads it."""
    file = case.spec.weights
    if file is None:
        raise CheckSkipped("the model is random from its seed")
    try:
        path = find_weights(case.spec)
    except WeightsError as error:
        if file.path is None:
            raise CheckSkipped(f"{file.filename} is not here") from error
        raise
    assert path is not None  # the spec has weights
    # a hub's publisher, or the user, may change the file
    known = file.sha256 or file.url or file.path is not None
    if known and (found := sha256_of(path)) != file.sha256:
        raise CheckFailed(
            f"{path} has sha256 {found}, the spec says {file.sha256}",
            "describe the file that is shipped",
        )
    case.build(weights=path)


def lora_changes_nothing_at_step_0(case: FoundationCase) -> None:
    """With LoRA applied and nothing trained, the model answers as before."""
    if not case.spec.targets.lora:
        raise CheckSkipped("the model names no layer for LoRA")
    plain, pictures = case.model, images(2, case.image_size)
    lora = cast(FoundationModel, _tuned(cast(nn.Module, plain), case.spec, "lora"))
    for kind, prompts in prompt_kinds(plain, case.image_size).items():
        difference = _difference(
            predict(lora, pictures, prompts), predict(plain, pictures, prompts)
        )
        if difference > 1e-5:
            raise CheckFailed(
                f"the answer ({kind}) changed by {difference:.3g} under LoRA that adds zero",
                "call the layers, and do not look at their class: LoRA replaces them by a subclass",
            )


def what_trains_has_a_gradient(case: FoundationCase) -> None:
    """Everything that a tuner trains gets a gradient from prompts of every kind, the MAT one that is not zero."""
    kinds, size, targets = (
        prompt_kinds(case.model, case.image_size),
        case.image_size,
        case.spec.targets,
    )
    targeted = [
        name
        for name, of in (
            ("lora", targets.lora),
            ("adapter", targets.adapters),
            ("linear", targets.embed),
        )
        if of
    ]
    for tuner in ("frozen", *targeted, "decoder", "full"):
        try:
            network = build_network(case.spec, tuner=tuner, image_size=size, channels=2)
        except ConfigError:  # the tuner refuses the model, as it may
            continue
        trains = {name for name, p in network.named_parameters() if p.requires_grad}
        backpropagate(
            network,
            images(2, size)[:, :2],
            torch.ones(2, size, size, dtype=torch.bool),
            kinds.values(),
        )
        moved = {
            name: p.grad for name, p in network.named_parameters() if p.grad is not None
        }
        if frozen := moved.keys() - trains:
            raise CheckFailed(
                f"under tuner {tuner!r} what is frozen gets a gradient: {few_of(sorted(frozen))}",
                "never set requires_grad in the model; tuners do",
            )
        wrong = {
            name
            for name, grad in moved.items()
            if not (grad.isfinite().all() and (name[:4] != "mat." or grad.any()))
        }
        if silent := (trains - moved.keys()) | wrong:
            raise CheckFailed(
                f"under tuner {tuner!r} these train without a finite gradient: {few_of(sorted(silent))}",
                "run embed and encode without no_grad or detach, leave out parameters that nothing uses, call layers "
                "instead of reading their weights, or name what must not move in targets.frozen",
            )


def images(count: int, size: int) -> Tensor:
    """Return (count, 3, S, S) normalized noise; image i does not depend on how many follow."""
    return torch.stack(
        [
            torch.randn(3, size, size, generator=torch.Generator().manual_seed(i))
            for i in range(count)
        ]
    )


def predict(
    model: FoundationModel, pictures: Tensor, prompts: PromptBatch
) -> MaskPrediction:
    """Encode images and decode prompts, without gradient."""
    with torch.no_grad():
        return model.decoder.decode(
            model.backbone.encode(model.backbone.embed(pictures)), prompts
        )


def prompt_kinds(model: FoundationModel, size: int) -> dict[str, PromptBatch]:
    """Return K = 3 prompts on two images of every kind that training uses: clicks, boxes, corrections."""
    click = PromptBatch(
        image_index=torch.tensor((1, 0, 1)),  # of two images, not in their order
        point_coords=torch.tensor([[[0.3, 0.4]], [[0.6, 0.2]], [[0.5, 0.8]]]) * size,
        point_labels=torch.ones(3, 1, dtype=torch.int64),
    )
    boxes = (
        torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.5], [0.2, 0.5, 0.7, 0.9]])
        * size
    )
    box = replace(
        click,
        point_coords=click.point_coords[:, :0],
        point_labels=click.point_labels[:, :0],
        boxes=boxes,
    )
    low = predict(model, images(2, size), click).logits[:, :1]
    corrected = replace(
        click,
        point_coords=torch.cat([click.point_coords, size - click.point_coords], dim=1),
        point_labels=torch.tensor([[1, 0], [1, 1], [1, -1]]),
        mask_input=low,
    )
    box_corrected = replace(
        click, point_labels=click.point_labels * 0, boxes=boxes, mask_input=low
    )
    return {
        CLICK: click,
        BOX: box,
        CORRECTED: corrected,
        "a box, a click and a mask input": box_corrected,
    }


def copy_state(source: nn.Module, target: nn.Module, file: Path) -> None:
    """Write a state dict to safetensors, and load it into another module of the same kind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: t.detach().contiguous().clone()
            for name, t in source.state_dict().items()
        },
        file,
    )
    target.load_state_dict(load_file(file))


def check_seeded(random_state: Tensor, one: nn.Module, two: nn.Module) -> None:
    """Check that two modules of one seed are equal, and that building them left torch's random state as it was."""
    if not torch.equal(random_state, torch.random.get_rng_state()):
        raise CheckFailed("building it changed torch's random state", SEEDED)
    other = two.state_dict()
    if different := [
        name
        for name, tensor in one.state_dict().items()
        if not torch.equal(tensor, other[name])
    ]:
        raise CheckFailed(f"two of one seed differ in {few_of(different)}", SEEDED)


def _tuned(model: nn.Module, spec: FoundationSpec, tuner: str) -> nn.Module:
    """Return a tuned copy of a foundation model; raise ConfigError if the tuner refuses it."""
    copied = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    import_from_string(TUNER[tuner].apply)(
        copied, targets=spec.targets, generator=generator, **TUNER[tuner].options
    )
    return copied


def _equal(one: MaskPrediction, other: MaskPrediction) -> bool:
    return torch.equal(one.logits, other.logits) and torch.equal(one.iou, other.iou)


def _difference(one: MaskPrediction, other: MaskPrediction) -> float:
    """Return the largest difference of logits or predicted IoU, relative to the largest number of each."""
    pairs = ((one.logits, other.logits), (one.iou, other.iou))
    return max(
        float((a - b).abs().max()) / max(float(b.abs().max()), 1e-6) for a, b in pairs
    )


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

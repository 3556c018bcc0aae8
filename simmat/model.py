"""A transfer layer, a foundation model and a tuner put together into one network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError, SimMATError
from simmat.foundation import Backbone, FoundationModel, ImageEmbedding, MaskPrediction, PromptBatch, has_first_layer
from simmat.model_spec import ModelSpec, complete_options
from simmat.nn.allocation import AllocationLimit, Room
from simmat.nn.tensor_files import first_line
from simmat.nn.tuners import unfreeze_fresh
from simmat.plugins.registry import Registry
from simmat.specs import FoundationSpec, Output, TransferLayerSpec, TunerSpec, build_foundation, resolve


class SimMAT(nn.Module):
    """Sensor planes in, mask logits out: MAT -> first layer -> backbone -> prompt decoder.

    Attributes:
        mat: the transfer layer.
        foundation: the foundation model, with the tuner's modules in it.
        output: what the transfer layer gives, see `TransferLayerSpec.output`.
    """

    def __init__(self, mat: nn.Module, foundation: FoundationModel, output: Output) -> None:
        super().__init__()
        self.mat = mat
        self.foundation = cast(nn.Module, foundation)
        self.output = output

    def encode(self, planes: Tensor, content: Tensor) -> ImageEmbedding:
        """Encode a batch of images once.

        Args:
            planes: (B, C, S, S) float, normalised, invalid and padded pixels 0.
            content: (B, S, S) bool, False where there is only padding.
        """
        backbone = cast(FoundationModel, self.foundation).backbone
        return backbone.encode(self._features(planes, content, backbone))

    def _features(self, planes: Tensor, content: Tensor, backbone: Backbone) -> Tensor:
        if self.output == "features":
            replaced: Tensor = self.mat(planes, content)
            return replaced
        image, added = (self.mat(planes), None) if self.output == "image" else self.mat(planes, content)
        # A convolution's bias makes padding non-zero; the foundation model knows padding as zero.
        features = backbone.embed(image * content[:, None])
        return features if added is None else features + added

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Answer K prompts over the images of an embedding."""
        return cast(FoundationModel, self.foundation).decoder.decode(embedding, prompts)

    def forward(self, planes: Tensor, content: Tensor, prompts: PromptBatch) -> MaskPrediction:
        """Encode and decode in one go."""
        return self.decode(self.encode(planes, content), prompts)


@dataclass(frozen=True)
class Parts:
    """What a `ModelSpec` names, as it is found here.

    Attributes:
        foundation: the foundation model.
        transfer: the transfer layer.
        tuner: the tuner.
        weights: the foundation model's weight file; None leaves it random from the spec's seed.
    """

    foundation: FoundationSpec
    transfer: TransferLayerSpec
    tuner: TunerSpec
    weights: Path | None

    @property
    def learning_rate(self) -> float:
        """The peak learning rate where the user gives none: the foundation model's for this tuner, or the tuner's."""
        own = self.foundation.learning_rates if self.weights is not None else {}
        return own.get(self.tuner.name, self.tuner.learning_rate)


def find_parts(spec: ModelSpec, registry: Registry, weights: Path | None) -> Parts:
    """Return the installed parts that a spec names; the weight file is already found and checked.

    Raises:
        UnknownNameError: one is not installed.
    """
    return Parts(
        registry.foundation(spec.foundation), registry.transfer_layer(spec.mat), registry.tuner(spec.tune), weights
    )


def zero_shot_of(spec: ModelSpec, registry: Registry, weights: Path | None) -> tuple[ModelSpec, Parts]:
    """Return spec and parts of the same foundation model, untouched, behind the zero-shot map."""
    plain = {"mat": "zeroshot", "mat_options": {}, "tune": "frozen", "tune_options": {}}
    untouched = spec.model_copy(update=plain)
    return untouched, find_parts(untouched, registry, weights)


def assemble(
    spec: ModelSpec, parts: Parts, *, foundation_room: Room | None = None, own_room: Room | None = None
) -> SimMAT:
    """Build the network of a spec.

    Only the transfer layer, what the tuner moves, and what no weight file fills, require gradients.

    Args:
        spec: what is built.
        parts: what it names.
        foundation_room: memory that building the foundation model may take; None for no limit.
        own_room: memory that building transfer layer and tuner may take, each; None for no limit.

    Raises:
        ConfigError: an unknown option or one out of range, or a model the tuner cannot work on.
        TooLargeError: a limit is reached, see `simmat.nn.allocation`.
        SpecError: the input size does not fit.
        WeightsError: the weight file is damaged or of another model.
    """
    tune_options = complete_options(parts.tuner, spec.tune_options)
    with _limited(foundation_room, f"foundation model {parts.foundation.name!r} at {spec.image_size} px"):
        foundation = build_foundation(
            parts.foundation, image_size=spec.image_size, weights=parts.weights, seed=spec.seed
        )
    network = cast(nn.Module, foundation)
    network.requires_grad_(False)
    mat = assemble_transfer(spec, parts, foundation, room=own_room)
    with _part("tuner", parts.tuner.name, tune_options, own_room):
        resolve(parts.tuner.apply)(
            foundation,
            targets=parts.foundation.targets,
            generator=torch.Generator().manual_seed(spec.seed + 1),
            **tune_options,
        )
    unfreeze_fresh(network, parts.foundation.targets)
    if parts.transfer.output == "features" and has_first_layer(foundation.backbone):
        foundation.backbone.first_layer.requires_grad_(False)  # replaced: it would train without a gradient
    return SimMAT(mat, foundation, parts.transfer.output)


def assemble_transfer(
    spec: ModelSpec, parts: Parts, foundation: FoundationModel, *, room: Room | None = None
) -> nn.Module:
    """Build the transfer layer of a spec in front of a foundation model; raises as `assemble`."""
    options = complete_options(parts.transfer, spec.mat_options)
    with _part("transfer layer", parts.transfer.name, options, room):
        mat: nn.Module = resolve(parts.transfer.build)(
            channels=spec.channels,
            zero_shot=torch.tensor(spec.zero_shot, dtype=torch.float32),
            backbone=foundation.backbone,
            generator=torch.Generator().manual_seed(spec.seed),
            **options,
        )
    return mat


def _limited(room: Room | None, what: str) -> AbstractContextManager[object]:
    return nullcontext() if room is None else AllocationLimit(room, what)


@contextmanager
def _part(kind: str, name: str, options: Mapping[str, Any], room: Room | None) -> Iterator[None]:
    """Build a part within a limit of memory; what torch says to options out of all range becomes one error."""
    given = ", ".join(f"{key} = {value}" for key, value in options.items())
    said = f"{kind} {name!r}" + (f" of {given}" if given else "")
    try:
        with _limited(room, said):
            yield
    except SimMATError:
        raise
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{said} cannot be built ({first_line(error)}); give it options in range") from error


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) parameters; one shared by two modules counts once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

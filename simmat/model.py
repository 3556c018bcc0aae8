"""Build the network of a `ModelSpec` from a transfer layer, a foundation model and a tuner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError, PluginError, SimMATError
from simmat.foundation import (
    Backbone,
    FoundationModel,
    ImageEmbedding,
    MaskPrediction,
    PromptBatch,
    has_finer_levels,
    has_first_layer,
)
from simmat.model_spec import ModelSpec, complete_options
from simmat.nn.dense_head import DenseHead
from simmat.nn.device import keep_freed_memory
from simmat.nn.meta_device import meta_copy, meta_device
from simmat.nn.tensor_files import first_line
from simmat.nn.tuners import unfreeze_newly_initialized
from simmat.plugin_specs import (
    FoundationSpec,
    Output,
    TransferLayerSpec,
    TunerSpec,
    build_foundation,
    import_from_string,
)
from simmat.plugins.registry import Registry
from simmat.types import SensorImage


class SimMAT(nn.Module):
    """Sensor planes in, mask logits out: MAT -> first layer -> backbone -> prompt decoder.

    Attributes:
        output: what the transfer layer returns, see `TransferLayerSpec.output`.
        layer: name of the transfer layer, for messages.
        dense: class map and object centres from the same embedding; None if the network answers prompts only.
    """

    def __init__(
        self,
        mat: nn.Module,
        foundation: FoundationModel,
        output: Output,
        dense: DenseHead | None = None,
        *,
        layer: str = "",
    ) -> None:
        super().__init__()
        self.layer = layer
        self.mat = mat
        self.foundation = cast(nn.Module, foundation)
        self.output = output
        self.dense = dense

    def for_image(self, image: SensorImage) -> SimMAT:
        """Return the network that encodes an image; exported models that prepare images themselves get it here."""
        return self

    def encode(self, planes: Tensor, content: Tensor | None = None) -> ImageEmbedding:
        """Encode a batch of images.

        Args:
            planes: (B, C, S, S) float, normalized; 0 at invalid and padded pixels.
            content: (B, S, S) bool, False on padding; None for images without padding.

        Raises:
            PluginError: the transfer layer returned an image of another shape.
        """
        if content is None:
            content = torch.ones_like(planes[:, 0], dtype=torch.bool)
        backbone = cast(FoundationModel, self.foundation).backbone
        if self.output == "features":
            return backbone.encode(self.mat(planes, content))
        if self.output == "image":
            image = self.mat(planes)
            added = None
        else:
            image, added = self.mat(planes, content)
        if image.shape != (len(planes), 3, *planes.shape[2:]):
            raise PluginError(
                f"transfer layer {self.layer!r} must return an image of {(len(planes), 3, *planes.shape[2:])}, got "
                f"{tuple(image.shape)}; this is a fault of its plugin"
            )
        # A convolution's bias makes padding non-zero; the foundation model was trained with zero padding.
        features = backbone.embed(image * content[:, None])
        return backbone.encode(features if added is None else features + added)

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts over the images of an embedding."""
        return cast(FoundationModel, self.foundation).decoder.decode(embedding, prompts)

    def forward(self, planes: Tensor, content: Tensor, prompts: PromptBatch) -> MaskPrediction:
        """Encode and decode."""
        return self.decode(self.encode(planes, content), prompts)


@dataclass(frozen=True)
class Parts:
    """The installed parts that a `ModelSpec` names.

    Attributes:
        weights: the foundation model's weight file; None for random weights from the spec's seed.
        exported: True if they are only names, those of an exported model, which has its own network.
    """

    foundation: FoundationSpec
    transfer: TransferLayerSpec
    tuner: TunerSpec
    weights: Path | None
    exported: bool = False

    @property
    def learning_rate(self) -> float:
        """The default peak learning rate: the foundation model's for this tuner if it has one, else the tuner's."""
        own = self.foundation.learning_rates if self.weights is not None else {}
        return own.get(self.tuner.name, self.tuner.learning_rate)


def find_parts(spec: ModelSpec, registry: Registry, weights: Path | None) -> Parts:
    """Return the installed parts that a spec names, with a weight file that is already checked."""
    return Parts(
        registry.foundation(spec.foundation), registry.transfer_layer(spec.mat), registry.tuner(spec.tune), weights
    )


def zero_shot_of(spec: ModelSpec, registry: Registry, weights: Path | None) -> tuple[ModelSpec, Parts]:
    """Return spec and parts of the zero-shot reference: the same foundation model, frozen, with the zero-shot map."""
    changes: dict[str, Any] = {
        "mat": "zeroshot",
        "mat_options": {},
        "tune": "frozen",
        "tune_options": {},
        "dense": None,
    }
    reference = spec.model_copy(update=changes)
    return reference, find_parts(reference, registry, weights)


def assemble(spec: ModelSpec, parts: Parts) -> SimMAT:
    """Build the network of a spec.

    Only the transfer layer, the parameters of the tuner, and those that no weight file has, require gradients.

    Raises:
        ConfigError: an option is unknown or out of range, or the tuner does not support the model.
        SpecError: the model does not support the input size.
        WeightsError: the weight file is damaged or belongs to another model.
    """
    return assemble_on(foundation_of(spec, parts), spec, parts)


def foundation_of(spec: ModelSpec, parts: Parts) -> FoundationModel:
    """Build the foundation model of a spec; raises as `assemble`."""
    keep_freed_memory()
    return build_foundation(parts.foundation, image_size=spec.image_size, weights=parts.weights, seed=spec.seed)


def assemble_on(foundation: FoundationModel, spec: ModelSpec, parts: Parts) -> SimMAT:
    """Put the transfer layer, the tuner and the dense head of a spec on its foundation model, which is changed."""
    tune_options = complete_options(parts.tuner, spec.tune_options)
    network = cast(nn.Module, foundation)
    network.requires_grad_(False)
    mat = assemble_transfer(spec, parts, foundation)
    with _part("tuner", parts.tuner.name, tune_options):
        import_from_string(parts.tuner.apply)(
            foundation,
            targets=parts.foundation.targets,
            generator=torch.Generator().manual_seed(spec.seed + 1),
            **tune_options,
        )
    unfreeze_newly_initialized(network, parts.foundation.targets)
    if parts.transfer.output == "features" and has_first_layer(foundation.backbone):
        foundation.backbone.first_layer.requires_grad_(False)  # the MAT replaces it, so it gets no gradient
    with _part("dense head", "dense", {}):
        dense = _dense_head(spec, foundation)
    return SimMAT(mat, foundation, parts.transfer.output, dense, layer=parts.transfer.name)


def outline(foundation: FoundationModel, spec: ModelSpec, parts: Parts, max_calls: int) -> SimMAT | None:
    """Return what `assemble_on` would, on the meta device; None if a part cannot be built there.

    Raises:
        TooLargeError: it takes more than `max_calls` calls of torch.
        ConfigError: as `assemble`.
    """
    copied = cast(FoundationModel, meta_copy(cast(nn.Module, foundation)))
    try:
        with meta_device(f"a network of {parts.transfer.name!r} and {parts.tuner.name!r}", max_calls):
            return assemble_on(copied, spec, parts)
    except ConfigError as error:
        if "meta tensor" not in str(error):  # a layer that reads values while it is built
            raise
        return None


def _dense_head(spec: ModelSpec, foundation: FoundationModel) -> DenseHead | None:
    if spec.dense is None:
        return None
    widths = spec.dense.widths
    strides = spec.dense.strides
    if has_finer_levels(foundation.backbone):
        foundation.backbone.finer_levels = True
    if not widths:
        embedding = embedding_layout(foundation, spec.image_size)
        widths = tuple(level.shape[1] for level in embedding.levels)
        strides = tuple(embedding.strides)
    generator = torch.Generator().manual_seed(spec.seed + 2)
    return DenseHead(widths, strides, spec.dense.count, background=spec.dense.background, generator=generator)


def with_layout(spec: ModelSpec, model: SimMAT) -> ModelSpec:
    """Return a spec with the levels that the dense head of its network takes, so that loading does not compute it."""
    if spec.dense is None or model.dense is None:
        return spec
    layout = {"widths": model.dense.widths, "strides": model.dense.strides}
    return spec.model_copy(update={"dense": spec.dense.model_copy(update=layout)})


def embedding_layout(foundation: FoundationModel, size: int) -> ImageEmbedding:
    """Return the embedding of one S×S image on the meta device: shapes and strides, nothing is computed."""
    backbone = cast(Backbone, meta_copy(cast(nn.Module, foundation.backbone)).eval())
    with torch.no_grad():
        return backbone.encode(backbone.embed(torch.empty(1, 3, size, size, device="meta")))


def assemble_transfer(spec: ModelSpec, parts: Parts, foundation: FoundationModel) -> nn.Module:
    """Build the transfer layer of a spec for a foundation model; raises as `assemble`."""
    options = complete_options(parts.transfer, spec.mat_options)
    with _part("transfer layer", parts.transfer.name, options):
        mat: nn.Module = import_from_string(parts.transfer.build)(
            channels=spec.channels,
            zero_shot=torch.tensor(spec.zero_shot, dtype=torch.float32, device="cpu"),
            backbone=foundation.backbone,
            generator=torch.Generator().manual_seed(spec.seed),
            **options,
        )
    return mat


@contextmanager
def _part(kind: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Turn torch's errors about the options of a part into a `ConfigError`."""
    try:
        yield
    except SimMATError:
        raise
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{key} = {value}" for key, value in options.items())
        what = f"{kind} {name!r}" + (f" of {given}" if given else "")
        raise ConfigError(f"{what} cannot be built ({first_line(error)}); give it options in range") from error


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of (trainable, all) parameters; a shared one counts once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

"""The contract of a foundation model: a backbone, a prompt decoder, and a spec that is data.

Specs are read without torch; the modules behind them are built on demand. Tensors: B images, K
prompts over all images of a batch, S the square input size in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard

from simmat.api_version import API_VERSION
from simmat.errors import SpecError
from simmat.transfer import Output as Output  # plugins may import these three from here, too
from simmat.transfer import TransferLayerSpec as TransferLayerSpec
from simmat.transfer import TunerSpec as TunerSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ImageEmbedding:
    """What a backbone says of a batch of images, computed once however many prompts follow.

    Attributes:
        levels: L tensors (B, D_l, S / stride_l, S / stride_l), finest first.
        strides: L strides in input pixels; no whole numbers where patches of 14 pixels are split in four.
    """

    levels: tuple[Tensor, ...]
    strides: tuple[float, ...]


@dataclass(frozen=True)
class PromptBatch:
    """K prompts over the images of a batch, all of one kind (N points each, box or none).

    Attributes:
        image_index: (K,) int64; prompt k asks about image `image_index[k]`.
        point_coords: (K, N, 2) float32 xy in pixels of the S×S input; pixel (0, 0)'s centre is (0, 0). N may be 0.
        point_labels: (K, N) int64; 1 on the object, 0 not on it, -1 no point.
        boxes: (K, 4) float32 XYXY of their outer edges, from 0 to S, or None; see `Prompt.box`.
        mask_input: (K, 1, h, w) logits of an earlier decoding at the decoder's own mask size, or None.
    """

    image_index: Tensor
    point_coords: Tensor
    point_labels: Tensor
    boxes: Tensor | None = None
    mask_input: Tensor | None = None


@dataclass(frozen=True)
class MaskPrediction:
    """What a decoder answers to K prompts.

    Attributes:
        logits: (K, M, h, w) mask logits over the whole S×S input, > 0 is object. Mask 0 is the single
            answer; 1 to M-1, where there are any, are the alternatives for an ambiguous prompt.
        iou: (K, M) predicted IoU of each mask.
    """

    logits: Tensor
    iou: Tensor


class Backbone(Protocol):
    """The image side of a foundation model; an nn.Module.

    Where `embed` is one convolution it should offer it as `first_layer`, see `HasFirstLayer`.
    """

    def embed(self, image: Tensor) -> Tensor:
        """Run the pretrained first layer: (B, 3, S, S), normalised as the spec says -> its features.

        A patch embedding or conv stem, before position embedding and normalization layers.
        """

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest of the backbone on the first layer's features."""


class HasFirstLayer(Protocol):
    """A backbone whose first layer is one convolution: what transfer layers that replace or copy it ask for.

    One without it is refused by those layers, by name.
    """

    @property
    def first_layer(self) -> nn.Conv2d:
        """The very module that `embed` runs, without groups: `embed(image)` equals `first_layer(image)`.

        Behind a transfer layer of output "features" it is never run, and so never trained.
        """


class Memory(Protocol):
    """Tokens that a tuner joins to the keys and values of an attention; an nn.Module.

    Attributes:
        kind: "prompt": tokens, to be projected as every token is; "prefix": keys and values of their own.
    """

    kind: Literal["prompt", "prefix"]

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return what joins the keys and what joins the values: (N, D) each; for a prompt both are the same."""


class TunableAttention(Protocol):
    """What prompt and prefix tuning ask of the modules that `TuningTargets.attention` names; each an nn.Module.

    Attributes:
        width: D of a token before its projections.
        memory: what joins keys and values, given by a tuner; None, as built, changes nothing. A prompt is projected
            by the attention's own layers; a prefix joins before or behind them, as the attention defines. What joins
            has no position and asks no query. See `simmat.nn.memory.join_memory` for attention with a fused qkv.
    """

    width: int
    memory: Memory | None


class PromptDecoder(Protocol):
    """The prompt side of a foundation model; an nn.Module."""

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Answer every prompt of the batch."""


class FoundationModel(Protocol):
    """A backbone and a prompt decoder in one nn.Module."""

    backbone: Backbone
    decoder: PromptDecoder

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of nn.Module."""

    def state_dict(self) -> dict[str, Any]:
        """As of nn.Module."""


# Not `isinstance` with runtime_checkable: from Python 3.12 on it looks attributes up statically, and a submodule of an
# nn.Module is none.


def has_first_layer(backbone: object) -> TypeGuard[HasFirstLayer]:
    """Return whether a backbone has what `HasFirstLayer` asks for."""
    return hasattr(backbone, "first_layer")


def is_tunable_attention(module: object) -> TypeGuard[TunableAttention]:
    """Return whether a module has what `TunableAttention` asks for."""
    return hasattr(module, "width") and hasattr(module, "memory")


def is_foundation_model(model: object) -> TypeGuard[FoundationModel]:
    """Return whether a model has what `FoundationModel` asks for."""
    return all(hasattr(model, name) for name in ("backbone", "decoder", "named_parameters", "state_dict"))


@dataclass(frozen=True, slots=True)
class TuningTargets:
    """Where tuners find a model's layers. Regular expressions, matched whole, over module names.

    Names start with "backbone." or "decoder.". Empty where the model has no such layer; a tuner that
    needs one then refuses the model by name.

    Attributes:
        lora: linear or 1x1 conv layer -> which equal slices of its output LoRA changes, out of how many:
            r"backbone[.]blocks[.][0-9]+[.]qkv": ((0, 2), 3) for q and v of a fused qkv, ((0,), 1) for all.
        grid: layers among those of `lora` whose input keeps height and width, for Conv-LoRA: Linear on
            (B, H, W, D), or 1x1 conv on (B, D, H, W).
        adapters: module an adapter works beside, a residual MLP or block -> name, beside it, of the norm that its
            input passes first, "" for none; the adapter sees what that norm sees. Its first Linear (on (…, D)) or
            Conv2d (on (B, D, H, W)) tells D; it answers in the shape of its input.
        attention: attention modules, for prompt and prefix tuning, see `TunableAttention`.
        embed: what the `linear` tuner moves: the first layer and position embeddings (parameter names).
        never: parameter names no tuner moves (SAM's prompt encoder).
        fresh: parameter names that no weight file fills (a pyramid and decoder added to a bare backbone): they move
            under every tuner, `frozen` too, for at rest they would answer noise.
    """

    lora: Mapping[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    grid: tuple[str, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    attention: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weight file: where it comes from and how one knows it is the right one.

    Attributes:
        filename: its name in the cache.
        sha256: hex digest of the file; "" where its publisher may change it, as on a hub, but not with a url. Bundles
            keep the digest of the file they were trained on in any case.
        size_bytes: size, for progress and disk checks; 0 where unknown.
        url: where to download it; empty where `path` or `hub` is given.
        path: where it lies in an installed package; None where it is downloaded.
        licence: SPDX id or the source's own words.
        hub: its repository on the Hugging Face Hub ("timm/vit_small_patch14_dinov2.lvd142m"): then it lies in the
            Hub's own cache, shared with all libraries that use it, and is fetched by the Hub's own client.
        alternatives: further file names of that repository, taken where `filename` is not in it.
    """

    filename: str
    sha256: str
    size_bytes: int = 0
    url: str = ""
    path: Path | None = None
    licence: str = ""
    hub: str = ""
    alternatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.url and not self.sha256:
            raise SpecError(f"weight file {self.filename!r} is downloaded from a url, so it needs its sha256")


@dataclass(frozen=True, slots=True)
class FoundationSpec:
    """A foundation model as data.

    Attributes:
        name: what `--foundation` takes.
        description: one line for `simmat foundations list`.
        build: "package.module:function"; called as `function(spec, image_size=, weights=, seed=)`,
            see `build_foundation`.
        image_size: native square input size S in pixels.
        size_multiple: S must be a multiple of this.
        pixel_mean: mean of R, G, B on the 0..255 scale.
        pixel_std: standard deviation of R, G, B on the same scale.
        targets: where tuners find its layers.
        weights: its weight file; None for a model that is random from a seed. One without path, url and hub is only
            ever given by the user.
        promptable: whether its decoder was trained; False has no zero-shot score.
        licence: of code and weights.
        options: further plain values for the builder.
        learning_rates: name of a tuner -> the peak learning rate that suits this model better than the tuner's own,
            which is for one like SAM; used where the user gives none and the weights are not random.
        api_version: of the plugin interface it is written for; another than SimMAT's own is refused by name.
    """

    name: str
    description: str
    build: str
    image_size: int
    size_multiple: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    targets: TuningTargets = TuningTargets()
    weights: WeightFile | None = None
    promptable: bool = True
    licence: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    api_version: int = API_VERSION

    def check_image_size(self, size: int) -> None:
        """Raise SpecError where the model cannot take S×S input."""
        if size < self.size_multiple or size % self.size_multiple:
            below = max(size // self.size_multiple, 1) * self.size_multiple
            raise SpecError(
                f"foundation model {self.name!r} takes square inputs whose side is a multiple of {self.size_multiple}, "
                f"got --image-size {size}; use {below} or {below + self.size_multiple} (native: {self.image_size})"
            )


def resolve(reference: str) -> Any:
    """Import "package.module:attribute"; a reference that leads nowhere raises SpecError."""
    module_name, _, attribute = reference.partition(":")
    try:
        return getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(f"cannot import {reference!r}: {error}") from error


def build_foundation(spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int) -> FoundationModel:
    """Build a model from its spec.

    Args:
        spec: the model.
        image_size: S; must fit `spec.size_multiple`.
        weights: the weight file to load (already found and checked), or None for random weights.
        seed: of the random weights; the same seed gives the same bits, and torch's own state is left alone.

    Raises:
        SpecError: the size does not fit, or the builder cannot be imported.
        WeightsError: the file is damaged or of another model.
    """
    spec.check_image_size(image_size)
    model: FoundationModel = resolve(spec.build)(spec, image_size=image_size, weights=weights, seed=seed)
    return model

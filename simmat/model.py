"""The network of a sensor: its module, and how it is built from a transfer layer, a foundation model and a tuner.

`MAT` and `build` are the method as torch modules, without a data set. The rest builds the network of a `ModelSpec`,
also on the meta device: its sizes without its memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from simmat.data.card import DataCard
from simmat.errors import ConfigError, PluginError, SimMATError, SpecError
from simmat.foundation import (
    Backbone,
    FoundationModel,
    HasFinerLevels,
    ImageEmbedding,
    MaskPrediction,
    PromptBatch,
)
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.model_spec import ModelSpec, complete_options
from simmat.nn.dense_head import DenseHead
from simmat.nn.device import keep_freed_memory
from simmat.nn.tensor_files import first_line
from simmat.nn.tuners import unfreeze_newly_initialized
from simmat.plugin_specs import (
    FoundationSpec,
    Output,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.plugins.loader import installed
from simmat.plugins.registry import Modality, Registry, import_from_string
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.channel_selection import parse_channels
from simmat.sensors.normalize import (
    Moments,
    Statistics,
    fit_channels,
    zero_shot_map,
)
from simmat.types import Channel, SensorImage

Module = TypeVar("Module", bound=nn.Module)

_FILLS = frozenset(
    {
        "add_",
        "clamp_",
        "copy_",
        "div_",
        "erfinv_",
        "fill_",
        "mul_",
        "normal_",
        "uniform_",
        "zero_",
    }
)
"""Functions that only set values; some are slow to import for the meta device."""


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

    def forward(
        self, planes: Tensor, content: Tensor | None, prompts: PromptBatch
    ) -> MaskPrediction:
        """Encode and decode, see `encode`; what wraps a module, such as DistributedDataParallel, sees this call."""
        return self.decode(self.encode(planes, content), prompts)


class TooLargeError(ConfigError):
    """A network would take more memory than the limit."""


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
        registry.foundation(spec.foundation),
        registry.transfer_layer(spec.mat),
        registry.tuner(spec.tune),
        weights,
    )


def zero_shot_of(
    spec: ModelSpec, registry: Registry, weights: Path | None
) -> tuple[ModelSpec, Parts]:
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
    return build_foundation(
        parts.foundation,
        image_size=spec.image_size,
        weights=parts.weights,
        seed=spec.seed,
    )


def build_foundation(
    spec: FoundationSpec, *, image_size: int, weights: Path | None, seed: int
) -> FoundationModel:
    """Build a foundation model from its spec.

    Args:
        image_size: S; must fit `spec.size_multiple`.
        weights: the weight file to load (already found and checked), or None for random weights.
        seed: seed of random weights; the same seed gives the same bits, and torch's global state does not change.

    Raises:
        SpecError: the size does not fit, or the builder cannot be imported.
        WeightsError: the file is damaged or of another model.
    """
    check_image_size(spec, image_size)
    model: FoundationModel = import_from_string(spec.build)(
        spec, image_size=image_size, weights=weights, seed=seed
    )
    return model


def check_image_size(spec: FoundationSpec, size: int) -> None:
    """Raise SpecError if a foundation model does not take S×S input."""
    multiple = spec.size_multiple
    if size < multiple or size % multiple:
        below = max(size // multiple, 1) * multiple
        raise SpecError(
            f"foundation model {spec.name!r} takes square inputs whose side is a multiple of {multiple}, got "
            f"--image-size {size}; use {below} or {below + multiple} (native: {spec.image_size})"
        )


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
    if parts.transfer.output == "features" and hasattr(
        foundation.backbone, "first_layer"
    ):
        # the MAT replaces it, so it gets no gradient
        foundation.backbone.first_layer.requires_grad_(False)
    with _part("dense head", "dense", {}):
        dense = _dense_head(spec, foundation)
    return SimMAT(
        mat, foundation, parts.transfer.output, dense, layer=parts.transfer.name
    )


def meta_copy(module: Module) -> Module:
    """Return a copy of a module on the meta device, which takes no memory for its tensors."""
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad)
        else:
            memo[id(tensor)] = empty
    return copy.deepcopy(module, memo)


class _CallLimit(TorchFunctionMode):
    def __init__(self, max_calls: int, what: str) -> None:
        super().__init__()
        self._left = max_calls
        self._what = what
        self._max_calls = max_calls

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self._left -= 1
        # once: what ends a context, such as no_grad, must pass after a refusal
        if self._left == 0:
            raise TooLargeError(
                f"{self._what} would take more than {self._max_calls} calls of torch to build"
            )
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else named["tensor"]  # as torch.nn.init names it
        return func(*args, **named)


@contextmanager
def meta_device(what: str = "a network", max_calls: int = 10**9) -> Iterator[None]:
    """Make all tensors of the block on the meta device; random values are not set there, which imports torch._dynamo.

    Args:
        what: what is built, for the message ("transfer layer 'mat'").
        max_calls: number of calls of torch, so that a loop over an option ends.

    Raises:
        TooLargeError: there are more calls.
    """
    with torch.device("meta"), _CallLimit(max_calls, what):
        yield


def outline(
    foundation: FoundationModel, spec: ModelSpec, parts: Parts, max_calls: int
) -> SimMAT | None:
    """Return what `assemble_on` would, on the meta device; None if a part cannot be built there.

    Raises:
        TooLargeError: it takes more than `max_calls` calls of torch.
        ConfigError: as `assemble`.
    """
    copied = cast(FoundationModel, meta_copy(cast(nn.Module, foundation)))
    try:
        with meta_device(
            f"a network of {parts.transfer.name!r} and {parts.tuner.name!r}", max_calls
        ):
            return assemble_on(copied, spec, parts)
    except ConfigError as error:
        # a layer that reads values while it is built
        if "meta tensor" not in str(error):
            raise
        return None


def _dense_head(spec: ModelSpec, foundation: FoundationModel) -> DenseHead | None:
    if spec.dense is None:
        return None
    widths = spec.dense.widths
    strides = spec.dense.strides
    if hasattr(foundation.backbone, "finer_levels"):
        cast(HasFinerLevels, foundation.backbone).finer_levels = True
    if not widths:
        embedding = embedding_layout(foundation, spec.image_size)
        widths = tuple(level.shape[1] for level in embedding.levels)
        strides = tuple(embedding.strides)
    generator = torch.Generator().manual_seed(spec.seed + 2)
    return DenseHead(
        widths,
        strides,
        spec.dense.count,
        background=spec.dense.background,
        generator=generator,
    )


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
        return backbone.encode(
            backbone.embed(torch.empty(1, 3, size, size, device="meta"))
        )


def assemble_transfer(
    spec: ModelSpec, parts: Parts, foundation: FoundationModel
) -> nn.Module:
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
        raise ConfigError(
            f"{what} cannot be built ({first_line(error)}); give it options in range"
        ) from error


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of (trainable, all) parameters; a shared one counts once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(
        p.numel() for p in parameters
    )


class MAT(nn.Module):
    """A transfer layer alone, to put before any network for RGB images: (B, C, H, W) planes to (B, 3, H, W).

    The planes are normalized: zero mean, unit variance, 0 where nothing was measured.

        network = nn.Sequential(simmat.MAT.fitted(planes), timm.create_model("resnet18", pretrained=True))

    With `statistics`, or by `MAT.fitted`, the zero-shot map gives the first three principal components of the planes,
    scaled to unit variance; those below a hundredth of the first, which are mostly noise, stay below it. Without them
    the planes are treated as independent: the map then gives three equal images, the sum of the planes over the root of
    their number. For correlated planes, such as the bands of a camera, the result is a grey image of high contrast.

    Args:
        channels: the number of channels, or the channels; those named red, green and blue with quantity "srgb"
            pass through the zero-shot map unchanged.
        kind: name of a transfer layer whose output is an image.
        statistics: mean, std and correlation of the channels, by which the planes are normalized, see
            `simmat.sensors.normalize`; a channel that states mean and std is normalized by its own.
        seed: of its random weights; torch's global state is not changed.
        registry: what is installed; None loads the plugins.
        options: of the layer: width=32, contrast=0.33.

    Raises:
        ConfigError: the layer needs the first layer of a backbone (use `build`), or an option is unknown.
        SpecError: the statistics are of another number of channels.
    """

    def __init__(
        self,
        channels: int | Sequence[Channel],
        kind: str = "mat-residual",
        *,
        statistics: Statistics | None = None,
        seed: int = 0,
        registry: Registry | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        spec = (registry or installed()).transfer_layer(kind)
        if spec.output != "image":
            raise ConfigError(
                f"transfer layer {kind!r} takes the place of a backbone's first layer, so it does not stand alone; use "
                "simmat.build(mat=…), or another kind (mat, mat-residual, linear)"
            )
        planes = plain_channels(channels)
        if statistics is None:
            found = independent(len(planes))
            fitted = tuple(channel.with_statistics(0.0, 1.0) for channel in planes)
        else:
            found = statistics
            fitted = fit_channels(
                planes, found, pixel_mean=(0,) * 3, pixel_std=(1,) * 3
            )
        self.layer: nn.Module = import_from_string(spec.build)(
            channels=fitted,
            zero_shot=torch.from_numpy(zero_shot_map(fitted, found)),
            backbone=None,
            generator=torch.Generator().manual_seed(seed),
            **complete_options(spec, options),
        )

    @classmethod
    def fitted(
        cls,
        planes: Tensor,
        kind: str = "mat-residual",
        *,
        channels: Sequence[Channel] | None = None,
        seed: int = 0,
        registry: Registry | None = None,
        **options: Any,
    ) -> MAT:
        """Return a layer whose zero-shot map gives the principal components of planes, scaled to unit variance.

        Args:
            planes: (B, C, H, W) or (C, H, W), normalized like the planes that the layer will get, such as a batch of
                training images; a plane must not be constant.
            channels: the C channels; None for planes without names.

        Raises:
            ConfigError: the planes have another shape, are constant or not finite, or as `MAT`.
        """
        batch = planes[None] if planes.ndim == 3 else planes
        if batch.ndim != 4 or not batch.numel():
            raise ConfigError(
                f"planes must be (B, C, H, W), got shape {tuple(planes.shape)}"
            )
        values = (
            batch.detach().cpu().movedim(1, 0).flatten(1).double().numpy()
        )  # (C, P)
        found = Moments.of_pixels(values, np.ones(values.shape, np.bool_)).statistics()
        wrong = [
            i for i, std in enumerate(found.std) if not (std > 0 and np.isfinite(std))
        ]
        if wrong:
            raise ConfigError(
                f"planes {wrong} are constant or not finite, so they have no components; leave them out, and give 0 "
                "where nothing was measured"
            )
        named = plain_channels(len(values) if channels is None else channels)
        # the planes come as they are, so they are scaled by nothing but the map
        unscaled = [channel.with_statistics(0.0, 1.0) for channel in named]
        return cls(
            unscaled, kind, statistics=found, seed=seed, registry=registry, **options
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Map normalized planes (B, C, H, W) to an image (B, 3, H, W)."""
        image: Tensor = self.layer(planes)
        return image


def plain_channels(channels: int | Sequence[Channel]) -> tuple[Channel, ...]:
    """Return channels without a sensor, given themselves or as their number.

    Raises:
        ConfigError: they are none of the two, or there is none.
    """
    if isinstance(channels, int) and channels > 0:
        return tuple(Channel(f"plane{i}", "value", "1") for i in range(channels))
    given = channels if isinstance(channels, Sequence) else ()
    if given and all(isinstance(one, Channel) for one in given):
        return tuple(given)
    raise ConfigError(
        f"a transfer layer takes a number of channels, at least 1, or simmat.Channel objects, got {channels!r}"
    )


def independent(count: int) -> Statistics:
    """Return the statistics of channels of zero mean and unit variance that do not depend on each other."""
    rows = tuple(map(tuple, np.eye(count).tolist()))
    return Statistics((0.0,) * count, (1.0,) * count, rows, (1,) * count)


def build(
    *,
    foundation: str,
    modality: Modality | None = None,
    modality_options: Mapping[str, Any] | None = None,
    channels: int | str | Sequence[str | int] | Sequence[Channel] | None = None,
    mat: str | None = None,
    mat_options: Mapping[str, Any] | None = None,
    tune: str | None = None,
    tune_options: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    checkpoint: str | Path | None = None,
    from_scratch: bool = False,
    seed: int = 0,
    statistics: Statistics | None = None,
    registry: Registry | None = None,
) -> SimMAT:
    """Build the network of a sensor and a foundation model as an `nn.Module`, for a training loop of your own.

    `network.encode(planes)` takes normalized planes (B, C, S, S), and `network.decode(embedding, prompts)` a
    `simmat.foundation.PromptBatch`. `network(planes, content, prompts)` does both, which
    `torch.nn.parallel.DistributedDataParallel` needs: it synchronizes only the gradients of `forward`. Only the
    transfer layer and what the tuner trains require gradients.

    Args:
        foundation: name of the foundation model.
        modality: the sensor: a name, an adapter, or its class. It must declare its channels. None for planes of no
            sensor, whose number, or `simmat.Channel` objects, are then `channels`.
        modality_options: options of the sensor: {"unit": "cK"}.
        channels: channels of the sensor, as `--channels` takes them; None for all.
        mat: the transfer layer; None takes the foundation model's own.
        mat_options: options of the transfer layer: {"width": 32}.
        tune: which weights are trained; None takes the foundation model's own.
        tune_options: options of the tuner: {"rank": 8}.
        image_size: side S of the input in pixels; None takes the model's own.
        checkpoint: the foundation model's weight file; None looks in the cache and the packages.
        from_scratch: start from random weights.
        seed: of all random weights; torch's global state is not changed.
        statistics: mean, std and correlation of the channels, which the zero-shot map uses; None treats the channels as
            independent.
        registry: what is installed; None loads the plugins.

    Raises:
        SimMATError: a name, an option or the weight file is wrong.
    """
    known = registry or installed()
    if modality is None:
        name = "planes"
        planes = sensor_channels = _channels_without_sensor(channels, modality_options)
    else:
        sensor = _sensor(known, modality, modality_options, channels)
        name = sensor.name
        sensor_channels = sensor.channels
        planes = _transformed(sensor)
    file = None if checkpoint is None else Path(checkpoint)
    spec = known.foundation(foundation, fetch=True)
    layer = known.transfer_layer(mat or spec.mat)
    tuner = known.tuner(tune or spec.tune)
    size = image_size or spec.image_size
    check_image_size(spec, size)
    weights = None if from_scratch else find_weights(spec, file)
    if weights is not None and file is None:
        check_digest(spec, weights, sha256_of(weights))
    found = statistics or independent(len(planes))
    fitted = fit_channels(
        planes, found, pixel_mean=spec.pixel_mean, pixel_std=spec.pixel_std
    )
    model = ModelSpec(
        modality=name,
        sensor_channels=sensor_channels,
        channels=fitted,
        statistics=found,
        zero_shot=tuple(
            map(tuple, zero_shot_map(fitted, found, spec.pixel_std).tolist())
        ),
        foundation=spec.name,
        seed=seed,
        image_size=size,
        mat=layer.name,
        mat_options={
            **(spec.mat_options if mat is None else {}),
            **(mat_options or {}),
        },
        tune=tuner.name,
        tune_options=dict(tune_options or {}),
        card=DataCard(regions="instances"),
    )
    return assemble(model, Parts(spec, layer, tuner, weights))


def _channels_without_sensor(
    channels: object, options: Mapping[str, Any] | None
) -> tuple[Channel, ...]:
    """Return the channels of `build` without a modality."""
    if options:
        raise ConfigError(
            f"modality_options {dict(options)} belong to a sensor; give the modality, or leave them out"
        )
    if channels is None or isinstance(channels, str):
        raise ConfigError(
            f"without a modality, channels is the number of planes, or simmat.Channel objects, got {channels!r}"
        )
    return plain_channels(cast("int | Sequence[Channel]", channels))


def _sensor(
    known: Registry,
    modality: Modality,
    options: Mapping[str, Any] | None,
    channels: int | str | Sequence[str | int] | Sequence[Channel] | None,
) -> ModalityAdapter:
    """Return the sensor of `build`."""
    registry, name = known.with_modality(modality)
    if isinstance(channels, int):
        raise ConfigError(
            f'channels of a sensor are given by name or index, as "0-6" or [0, 1], got {channels}'
        )
    selected = parse_channels(channels) if isinstance(channels, str) else channels
    return registry.modality(
        name or "", options, channels=cast("Sequence[str | int] | None", selected)
    )


def _transformed(sensor: ModalityAdapter) -> tuple[Channel, ...]:
    """Return a sensor's channels as they reach the network.

    Raises:
        ConfigError: only its files say how many it has.
    """
    if not sensor.channels:
        raise ConfigError(
            f"modality {sensor.name!r} learns its channels from its files; give a sensor that declares them, or use "
            "simmat.MAT(channels), or build(channels=NUMBER) without a modality"
        )
    planes = np.zeros((len(sensor.channels), 1, 1), np.float32)
    return sensor.transform(SensorImage.from_planes(planes, sensor.channels)).channels

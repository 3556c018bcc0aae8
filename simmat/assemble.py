"""Build the network of a `ModelSpec` from its installed parts: a transfer layer, a foundation model and a tuner.

It is also built on the meta device: its sizes without its memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from simmat.errors import ConfigError, SimMATError, SpecError
from simmat.foundation import (
    Backbone,
    FoundationModel,
    HasFinerLevels,
    ImageEmbedding,
)
from simmat.model import SimMAT
from simmat.model_spec import ModelSpec, complete_options
from simmat.nn.dense_head import DenseHead
from simmat.nn.device import keep_freed_memory
from simmat.nn.tensor_files import first_line
from simmat.nn.tuners import unfreeze_newly_initialized
from simmat.plugin_specs import (
    FoundationSpec,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.plugins.registry import Registry, import_from_string

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

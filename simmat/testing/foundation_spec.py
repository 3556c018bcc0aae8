"""Foundation models: the cases to check, and the checks of their specs."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from simmat.errors import ConfigError, SimMATError, SpecError
from simmat.foundation import FoundationModel, ImageEmbedding, is_foundation_model
from simmat.specs import FoundationSpec, build_foundation
from simmat.testing.checks import CheckFailed, CheckSkipped, last_line, python_without_torch

if TYPE_CHECKING:
    from torch import nn


LEAST_SIZE = 64
"""Models are tried at their smallest input of at least this side, in pixels, unless another is given."""
MOST_PARAMETERS = 50_000_000
"""Models with more are measured on torch's meta device, without values, unless all is asked for."""


class FoundationCase:
    """A foundation model, as the checks see it.

    Attributes:
        spec: the model.
        folder: a scratch folder.
        image_size: S of the models that are built.
        full: whether large models are built with values, too.
    """

    def __init__(
        self, spec: FoundationSpec, folder: Path, *, image_size: int | None = None, full: bool = False
    ) -> None:
        self.spec = spec
        self.folder = folder
        multiple = max(spec.size_multiple, 1)
        self.image_size = image_size or -(-LEAST_SIZE // multiple) * multiple
        self.full = full

    def build(self, seed: int = 0, *, weights: Path | None = None) -> FoundationModel:
        """Build a model with random weights, or those of a file.

        Raises:
            CheckSkipped: it is large, and not all was asked for.
        """
        self.require_values()
        return self._build(seed, weights)

    @cached_property
    def model(self) -> FoundationModel:
        """A model of seed 0, for whatever does not change it."""
        return self.build()

    @cached_property
    def skeleton(self) -> nn.Module:
        """The model for looking at its names and shapes; where it is large, without values."""
        return cast("nn.Module", self.model if self.measured is None or not self._is_large else self.measured)

    def embedding(self) -> ImageEmbedding:
        """Return what the backbone says of an image of zeros; where the model is large, without values.

        Raises:
            CheckSkipped: it is large, cannot run without values, and not all was asked for.
        """
        skeleton = self.skeleton
        if skeleton is not self.measured:
            return self._embedding(skeleton)
        try:
            return self._embedding(skeleton)
        except Exception as error:  # torch.device("meta") does not reach what comes from numpy
            if self.full:
                return self._embedding(cast("nn.Module", self.model))
            raise CheckSkipped(
                f"{self.parameters / 1e6:.0f} M parameters, and the model does not run on torch's meta device "
                f"({type(error).__name__}: {error}): run with --full (full = True)"
            ) from error

    def _embedding(self, module: nn.Module) -> ImageEmbedding:
        import torch

        model, device = cast(FoundationModel, module), next(module.parameters()).device
        with torch.no_grad():
            image = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
            return model.backbone.encode(model.backbone.embed(image))

    def require_values(self) -> None:
        """Raise CheckSkipped where the model is large and not all was asked for."""
        if self._is_large and not self.full:
            raise CheckSkipped(f"{self.parameters / 1e6:.0f} M parameters: run with --full (full = True)")

    @cached_property
    def parameters(self) -> int:
        """How many parameters it has; 0 where its builder cannot be used on the meta device, to count them."""
        return 0 if self.measured is None else sum(p.numel() for p in self.measured.parameters())

    @cached_property
    def measured(self) -> nn.Module | None:
        """The model without values, on torch's meta device; None where its builder cannot be used there."""
        import torch

        try:
            with torch.device("meta"):
                model = cast("nn.Module", self._build(0, None))
                return model if all(p.is_meta for p in model.parameters()) else None
        except Exception:
            return None

    @property
    def _is_large(self) -> bool:
        return self.parameters > MOST_PARAMETERS

    def _build(self, seed: int, weights: Path | None) -> FoundationModel:
        model = build_foundation(self.spec, image_size=self.image_size, weights=weights, seed=seed)
        if not is_foundation_model(model):
            raise CheckFailed(
                f"{self.spec.build} returned a {type(model).__name__}",
                "return an nn.Module with `backbone` and `decoder`, see simmat.foundation.FoundationModel",
            )
        return model


_NEEDS = {"lora": "lora", "conv-lora": "grid", "adapter": "adapters", "prompt": "attention", "linear": "embed"}
"""Tuner -> the targets it works on."""
_SIZES = "set image_size and size_multiple of the spec to what the model really takes"


def spec_readable_without_torch(case: FoundationCase) -> None:
    """The spec is plain data, which a Python without torch can read."""
    if odd := _not_plain("options", case.spec.options):
        raise CheckFailed(f"{odd} is no plain value", "use text, numbers, booleans, lists and mappings in the spec")
    try:
        data = pickle.dumps(case.spec)
    except Exception as error:
        raise CheckFailed(f"the spec cannot be pickled: {error}", "use plain values in the spec") from error
    answer = python_without_torch("import pickle, sys; print(pickle.load(sys.stdin.buffer).name)", data)
    if answer.returncode or answer.stdout.decode().strip() != case.spec.name:
        raise CheckFailed(
            f"without torch the spec cannot be read: {last_line(answer)}",
            'name the builder as text, build="package.module:function", and import torch in that module alone',
        )


def pixel_statistics_are_counts(case: FoundationCase) -> None:
    """`pixel_mean` and `pixel_std` are those of R, G, B on the scale of 0 to 255; 0 and 1 leave it to the network."""
    mean, std = tuple(case.spec.pixel_mean), tuple(case.spec.pixel_std)
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise CheckFailed(f"pixel_mean is {mean}, pixel_std {std}", "give three numbers each, each std above 0")
    if set(mean) == {0.0} and set(std) == {1.0}:
        return  # the network scales 0 to 255 itself
    if all(abs(value) <= 1.5 for value in (*mean, *std)):
        raise CheckFailed(f"pixel_mean {mean} and pixel_std {std} are on the scale of 0 to 1", "multiply both by 255")
    if not all(0 <= value <= 255 for value in (*mean, *std)):
        raise CheckFailed(f"pixel_mean {mean} or pixel_std {std} lies outside 0 to 255", "give them in counts")


def wrong_input_size_is_refused(case: FoundationCase) -> None:
    """An input size that the model cannot take raises a SimMAT error that names the model; its native one fits."""
    from simmat.specs import build_foundation

    spec = case.spec
    try:
        spec.check_image_size(spec.image_size)
    except SpecError as error:
        raise CheckFailed(f"the native size {spec.image_size} is refused: {error}", _SIZES) from error
    coarsest = max(case.embedding().strides)
    wrong = case.image_size + 1
    if coarsest == 1 and spec.size_multiple == 1:
        raise CheckSkipped("every size fits a model of stride 1")
    try:
        build_foundation(spec, image_size=wrong, weights=None, seed=0)
    except SimMATError as error:
        if spec.name not in str(error):
            raise CheckFailed(f"the error does not name {spec.name!r}: {error}", _SIZES) from error
    except Exception as error:
        raise CheckFailed(f"{wrong} px ended in {type(error).__name__}: {error}", _SIZES) from error
    else:
        raise CheckFailed(f"a model of stride {coarsest} was built for {wrong} px all the same", _SIZES)


def tuning_targets_match(case: FoundationCase) -> None:
    """Every pattern of the tuning targets matches, and what it matches is what tuners can work on."""
    targets = case.spec.targets
    modules = [name for name, _ in case.skeleton.named_modules()]
    parameters = [name for name, _ in case.skeleton.named_parameters()]
    over_modules = {
        "lora": targets.lora,
        "grid": targets.grid,
        "adapters": targets.adapters,
        "attention": targets.attention,
    }
    for kind, patterns in over_modules.items():
        _expect_matches(kind, patterns, modules)
    for kind, patterns in {"embed": targets.embed, "never": targets.never, "fresh": targets.fresh}.items():
        _expect_matches(kind, patterns, parameters)
    for tuner, kind in _NEEDS.items():
        if getattr(targets, kind):
            _expect_tuner_works(case, tuner, kind)


def _expect_matches(kind: str, patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise CheckFailed(
                f"targets.{kind}: {pattern!r} matches none of the {len(names)} names",
                f"a pattern is matched whole over names that begin with backbone. or decoder., as {names[-1]}",
            )


def _expect_tuner_works(case: FoundationCase, tuner: str, kind: str) -> None:
    from simmat.testing.networks import TUNER, apply_tuner

    try:
        apply_tuner(case.skeleton, case.spec, TUNER[tuner])
    except ConfigError as error:
        raise CheckFailed(
            f"targets.{kind} names what tuner {tuner!r} cannot work on: {error}",
            "see simmat.foundation.TuningTargets for what each pattern must name",
        ) from error


def _not_plain(name: str, value: Any) -> str:
    """Return the name of the first value below `value` that json would not know, "" where there is none."""
    if value is None or isinstance(value, str | int | float | bool):
        return ""
    if isinstance(value, Mapping):
        items = [(f"{name}[{key!r}]", inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{name}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        return f"{name} ({type(value).__name__})"
    return next((odd for key, inner in items if (odd := _not_plain(key, inner))), "")

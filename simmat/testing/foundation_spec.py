"""A foundation model as the checks see it, and the checks of its spec."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from simmat.errors import ConfigError, SimMATError, SpecError
from simmat.foundation import FoundationModel, ImageEmbedding, is_foundation_model
from simmat.plugin_specs import FoundationSpec, build_foundation
from simmat.testing.checks import CheckFailed, CheckSkipped, last_line, python_without_torch

if TYPE_CHECKING:
    from torch import nn


MIN_SIZE = 64
"""Models are built for their smallest input of at least this side, in pixels, unless another is given."""
MAX_PARAMETERS = 50_000_000
"""Larger models are built on torch's meta device, without values, unless the slow checks run."""


class FoundationCase:
    """A foundation model, as the checks see it.

    Attributes:
        image_size: S of the models that are built.
        full: build large models with values too.
    """

    def __init__(
        self, spec: FoundationSpec, folder: Path, *, image_size: int | None = None, full: bool = False
    ) -> None:
        self.spec = spec
        self.folder = folder
        multiple = max(spec.size_multiple, 1)
        self.image_size = image_size or -(-MIN_SIZE // multiple) * multiple
        self.full = full

    def build(self, seed: int = 0, *, weights: Path | None = None) -> FoundationModel:
        """Build a model with random weights, or those of a file; a large one only with `full`."""
        self.require_values()
        return self._build(seed, weights)

    def require_values(self) -> None:
        """Raise CheckSkipped where the model is large and slow checks do not run."""
        if self.parameters > MAX_PARAMETERS and not self.full:
            raise CheckSkipped(f"{self.parameters / 1e6:.0f} M parameters: run with --full (full = True)")

    @cached_property
    def model(self) -> FoundationModel:
        """A model of seed 0, not to be changed."""
        return self.build()

    @cached_property
    def parameters(self) -> int:
        """How many parameters it has; 0 where its builder does not work on the meta device."""
        return 0 if self._on_meta is None else sum(p.numel() for p in self._on_meta.parameters())

    @cached_property
    def skeleton(self) -> nn.Module:
        """The model with its names and shapes; a large one has no values, unless `full`."""
        is_large = self.parameters > MAX_PARAMETERS and not self.full
        return cast("nn.Module", self._on_meta if is_large else self.model)

    def embedding(self) -> ImageEmbedding:
        """Return the backbone's embedding of an image of zeros; that of a large model has no values."""
        import torch

        model, device = cast(FoundationModel, self.skeleton), next(self.skeleton.parameters()).device
        image = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
        with torch.no_grad():
            try:
                return model.backbone.encode(model.backbone.embed(image))
            except Exception as error:
                if device.type != "meta":
                    raise
                raise CheckSkipped(  # torch.device("meta") does not apply to arrays from numpy
                    f"{self.parameters / 1e6:.0f} M parameters, and the model does not run on torch's meta device "
                    f"({type(error).__name__}: {error}): run with --full (full = True)"
                ) from error

    @cached_property
    def _on_meta(self) -> nn.Module | None:
        """The model on torch's meta device, without values; None if its builder does not work there."""
        import torch

        try:
            with torch.device("meta"):
                model = cast("nn.Module", self._build(0, None))
                return model if all(p.is_meta for p in model.parameters()) else None
        except Exception:
            return None

    def _build(self, seed: int, weights: Path | None) -> FoundationModel:
        model = build_foundation(self.spec, image_size=self.image_size, weights=weights, seed=seed)
        if not is_foundation_model(model):
            raise CheckFailed(
                f"{self.spec.build} returned a {type(model).__name__}",
                "return an nn.Module with `backbone` and `decoder`, see simmat.foundation.FoundationModel",
            )
        return model


def spec_readable_without_torch(case: FoundationCase) -> None:
    """The spec is plain data, which a Python without torch can read."""
    json.dumps(case.spec.options, default=_plain)
    try:
        data = pickle.dumps(case.spec)
    except Exception as error:
        raise CheckFailed(f"the spec cannot be pickled: {error}", "use plain values in the spec") from error
    answer = python_without_torch("import pickle; print(pickle.load(sys.stdin.buffer).name)", data)
    if answer.returncode or answer.stdout.decode().strip() != case.spec.name:
        raise CheckFailed(
            f"without torch the spec cannot be read: {last_line(answer)}",
            'name the builder as text, build="package.module:function", and import torch in that module alone',
        )


def _plain(value: object) -> dict[Any, Any]:
    """Return a mapping as json takes it; fail for what json does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise CheckFailed(
        f"the options of the spec hold {value!r}, of type {type(value).__name__}",
        "use text, numbers, booleans, lists and mappings in the spec",
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
        raise CheckFailed(f"pixel_mean {mean} or pixel_std {std} is outside 0 to 255", "give them in counts")


def wrong_input_size_is_refused(case: FoundationCase) -> None:
    """An input size that the model cannot take raises a SimMAT error that names the model; its native one fits."""
    spec = case.spec
    advice = "set image_size and size_multiple of the spec to what the model takes"
    try:
        spec.check_image_size(spec.image_size)
    except SpecError as error:
        raise CheckFailed(f"the native size {spec.image_size} is refused: {error}", advice) from error
    coarsest = max(case.embedding().strides)
    wrong = case.image_size + 1
    if coarsest == 1 and spec.size_multiple == 1:
        raise CheckSkipped("every size fits a model of stride 1")
    try:
        build_foundation(spec, image_size=wrong, weights=None, seed=0)
    except SimMATError as error:
        if spec.name not in str(error):
            raise CheckFailed(f"the error does not name {spec.name!r}: {error}", advice) from error
    except Exception as error:
        raise CheckFailed(f"{wrong} px raised {type(error).__name__}: {error}", advice) from error
    else:
        raise CheckFailed(f"a model of stride {coarsest} was built for {wrong} px", advice)


def tuning_targets_match(case: FoundationCase) -> None:
    """Every pattern of the tuning targets matches, and what it matches is what tuners can work on."""
    targets = case.spec.targets
    modules = [name for name, _ in case.skeleton.named_modules()]
    parameters = [name for name, _ in case.skeleton.named_parameters()]
    for kind in ("lora", "grid", "adapters", "attention"):
        _expect_matches(kind, getattr(targets, kind), modules)
    for kind in ("embed", "never", "fresh"):
        _expect_matches(kind, getattr(targets, kind), parameters)
    works_on = {"lora": "lora", "conv-lora": "grid", "adapter": "adapters", "prompt": "attention", "linear": "embed"}
    for tuner, kind in works_on.items():
        if getattr(targets, kind):
            _expect_tuner_works(case, tuner, kind)


def _expect_matches(kind: str, patterns: Iterable[str], names: list[str]) -> None:
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise CheckFailed(
                f"targets.{kind}: {pattern!r} matches none of the {len(names)} names",
                f"a pattern must match a whole name, which begins with backbone. or decoder., as {names[-1]}",
            )


def _expect_tuner_works(case: FoundationCase, tuner: str, kind: str) -> None:
    from simmat.testing.networks import apply_tuner

    try:
        apply_tuner(case.skeleton, case.spec, tuner)
    except ConfigError as error:
        raise CheckFailed(
            f"targets.{kind} names what tuner {tuner!r} cannot work on: {error}",
            "see simmat.foundation.TuningTargets for what each pattern must name",
        ) from error

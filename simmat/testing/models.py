"""The case of a foundation model: its spec, and models built from it at a small input size."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from simmat.foundation import FoundationModel, FoundationSpec, ImageEmbedding, build_foundation, is_foundation_model
from simmat.testing.checks import CheckFailed, CheckSkipped

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

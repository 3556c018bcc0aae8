"""Most ViTs and hierarchical transformers of timm as `timm/NAME`. Imports neither torch nor timm."""

from __future__ import annotations

from collections.abc import Iterable

from simmat.plugin_specs import FoundationFamily
from simmat.plugins.hooks import hookimpl

TIMM = FoundationFamily(
    name="timm",
    description="timm's ViTs (DINOv2, DINOv3, MAE, CLIP, EVA, SAM's encoder) and hierarchies (Swin, Hiera, PVT, …)",
    models="simmat_plugin_timm.specs:models",
    spec="simmat_plugin_timm.specs:spec",
)


@hookimpl
def simmat_foundation_families() -> Iterable[FoundationFamily]:
    """Return the family of timm's models."""
    return (TIMM,)

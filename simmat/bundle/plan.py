"""From what a bundle says to its sensor and its network's plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from simmat.bundle.spec import BundleSpec
from simmat.composition import SelectedChannels
from simmat.declared import Declaration, DeclaredModality
from simmat.modality import ModalityAdapter
from simmat.model import ModelPlan
from simmat.plugins import Registry


def adapter_for(
    registry: Registry,
    modality: str,
    picks: tuple[str | int, ...] | None,
    described: Iterable[Declaration] = (),
) -> ModalityAdapter:
    """Return the adapter of a modality name, limited to the picked channels; `described` are those a bundle carries."""
    adapter = registry.modality(
        modality, {declaration.name: DeclaredModality(declaration) for declaration in described}
    )
    return SelectedChannels(adapter, picks) if picks is not None else adapter


def plan_of(spec: BundleSpec, registry: Registry, weights: Path | None) -> ModelPlan:
    """Return the plan of a bundle's network; the weight file is already found and checked."""
    return ModelPlan(
        foundation=registry.foundation(spec.foundation),
        transfer=registry.transfer_layer(spec.mat),
        tuner=registry.tuner(spec.tune),
        channels=spec.channels,
        zero_shot=np.asarray(spec.zero_shot, dtype=np.float32),
        image_size=spec.image_size,
        weights=weights,
        seed=spec.seed,
        mat_options=spec.mat_options,
        tune_options=spec.tune_options,
    )


def zero_shot_plan(plan: ModelPlan, registry: Registry) -> ModelPlan:
    """Return the plan of the same foundation model, untouched, behind the zero-shot map."""
    return replace(
        plan,
        transfer=registry.transfer_layer("zeroshot"),
        tuner=registry.tuner("frozen"),
        mat_options={},
        tune_options={},
    )

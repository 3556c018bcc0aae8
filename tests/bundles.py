"""A bundle without a training: the tiny random model, saved as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from runs import registry

from simmat.bundle import BundleSpec, plan_of, trained_tensors, write_bundle
from simmat.data.card import DataCard
from simmat.model import assemble
from simmat.normalize import Statistics
from simmat.types import Channel

GRAY = Channel("gray", "counts", "count", valid_range=(0.0, 255.0))
SPEC = BundleSpec(
    modality="gray",
    picks=None,
    sensor_channels=(GRAY,),
    channels=(GRAY.with_statistics(60.0, 20.0),),
    statistics=Statistics((60.0,), (20.0,), ((1.0,),), (1000,)),
    zero_shot=((1.0,), (1.0,), (1.0,)),
    foundation="sam_vit_tiny",
    foundation_sha256=None,
    seed=0,
    image_size=64,
    aspect="keep",
    mat="mat",
    mat_options={"width": 4},
    tune="frozen",
    card=DataCard(regions="instances", source="made up", licence="CC0-1.0"),
    metrics={"val": {"objects": 8, "images": 4, "miou_object": 0.512, "miou_class": None}, "step": 30},
)


def tiny_bundle(folder: Path, **changes: Any) -> Path:
    """Save a bundle of SPEC with some fields changed, and return its folder."""
    spec = replace(SPEC, **changes)
    write_bundle(folder, spec, trained_tensors(assemble(plan_of(spec, registry(), None))))
    return folder

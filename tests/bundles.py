"""A bundle without a training: the tiny random model, saved as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs import registry
from safetensors import safe_open
from torch import Tensor

from simmat.assemble import assemble, find_parts
from simmat.bundle import FILE_NAME, Bundle, BundleSpec, trained_tensors, write_bundle
from simmat.bundle.format import METADATA_KEY, bundle_bytes
from simmat.data.card import DataCard
from simmat.model_spec import ModelSpec
from simmat.predictor import MaskSelection, Prediction, Predictor
from simmat.sensors.normalize import Statistics
from simmat.types import Channel, Prompt

GRAY = Channel("gray", "counts", "count", valid_range=(0.0, 255.0))
METRICS: dict[str, Any] = {
    "val": {"objects": 8, "images": 4, "miou_object": 0.512, "miou_class": None},
    "step": 30,
}
SPEC = ModelSpec(
    modality="gray",
    selected_channels=None,
    sensor_channels=(GRAY,),
    channels=(GRAY.with_statistics(60.0, 20.0),),
    statistics=Statistics((60.0,), (20.0,), ((1.0,),), (1000,)),
    zero_shot=((1.0,), (1.0,), (1.0,)),
    foundation="tiny",
    foundation_sha256=None,
    seed=0,
    image_size=64,
    aspect="pad",
    mat="mat",
    mat_options={"width": 4},
    tune="frozen",
    card=DataCard(regions="instances", source="made up", licence="CC0-1.0"),
)


BUNDLE_SPEC = BundleSpec(
    metrics=METRICS,
    sha256="0" * 64,
    **{name: getattr(SPEC, name) for name in ModelSpec.model_fields},
)
"""What a bundle of SPEC says of itself."""


def tiny_bundle(folder: Path, **changes: Any) -> Path:
    """Save a bundle of SPEC with some fields changed into a folder, as that of a run, and return the folder."""
    metrics = changes.pop("metrics", METRICS)
    records = {
        name: changes.pop(name)
        for name in ("calibration", "packages", "licence", "inputs")
        if name in changes
    }
    spec = SPEC.model_copy(update=changes)
    model = assemble(spec, find_parts(spec, registry(), None))
    write_bundle(folder / FILE_NAME, spec, trained_tensors(model), metrics, **records)
    return folder


def predict(
    bundle: Bundle,
    files: Mapping[str, Path],
    prompt: Prompt,
    *,
    mask_selection: MaskSelection = "single",
    missing: Sequence[str | int] = (),
) -> Prediction:
    """Ask a bundle one thing of one image."""
    predictor = Predictor.of_bundle(bundle)
    predictor.set_image(files, missing=missing)
    return predictor.predict_prompts([prompt], mask_selection=mask_selection)[0]


def file_of(bundle: Path) -> Path:
    """Return the file of a bundle, of which a run's folder may be given."""
    return bundle / FILE_NAME if bundle.is_dir() else bundle


def read_parts(bundle: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return json and tensors of a bundle, unchecked."""
    with safe_open(file_of(bundle), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return json.loads(file.metadata()[METADATA_KEY]), tensors


def change_tensors(bundle: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change a bundle's tensors as whoever makes bundles could: with a digest that is right."""
    document, tensors = read_parts(bundle)
    change(tensors)
    file_of(bundle).write_bytes(bundle_bytes(document, tensors))


def change_json(
    bundle: Path, change: Callable[[dict[str, Any]], Any] | None = None, **values: Any
) -> None:
    """Change a bundle's json as whoever makes bundles could: with a digest that is right.

    Args:
        bundle: its file, or the folder of a run.
        change: changes the document in place.
        values: fields put into it.
    """
    document, tensors = read_parts(bundle)
    document |= values
    if change is not None:
        change(document)
    file_of(bundle).write_bytes(bundle_bytes(document, tensors))

"""A bundle without a training: the tiny random model, saved as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs import registry

from simmat.bundle import Bundle, BundleSpec, trained_tensors, write_bundle
from simmat.bundle.document import with_checksum
from simmat.data.card import DataCard
from simmat.model import assemble, find_parts
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
    format=1,
    metrics=METRICS,
    weights_sha256="0" * 64,
    versions={},
    **{name: getattr(SPEC, name) for name in ModelSpec.model_fields},
)
"""What a bundle of SPEC says of itself."""


def tiny_bundle(folder: Path, **changes: Any) -> Path:
    """Save a bundle of SPEC with some fields changed, and return its folder."""
    metrics, calibration = changes.pop("metrics", METRICS), changes.pop("calibration", None)
    spec = SPEC.model_copy(update=changes)
    model = assemble(spec, find_parts(spec, registry(), None))
    write_bundle(folder, spec, trained_tensors(model), metrics, calibration=calibration)
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


def change_json(folder: Path, change: Callable[[dict[str, Any]], Any] | None = None, **values: Any) -> None:
    """Change a bundle's json as whoever makes bundles could: with a digest that is right.

    Args:
        folder: the bundle's.
        change: changes the document in place.
        values: fields put into it.
    """
    file = folder / "bundle.json"
    document = json.loads(file.read_text(encoding="utf-8")) | values
    if change is not None:
        change(document)
    file.write_text(json.dumps(with_checksum(document)), encoding="utf-8")

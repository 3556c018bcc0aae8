"""A bundle without a training: the tiny random model, saved as it is."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs import registry
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from simmat.bundle import FILE_NAME, Bundle, BundleSpec, trained_tensors, write_bundle
from simmat.bundle.format import METADATA_KEY, bundle_bytes
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


NEW_FIELDS = ("packages", "licence", "sha256")
"""What a bundle of version 0.1 does not say."""
FORMER_FIELDS = {"selected_channels": "picks", "sensor_definitions": "described"}
"""Name of a field -> what version 0.1 called it."""
FORMER_ASPECTS = {"pad": "keep", "stretch": "squash"}
"""Name of an aspect -> what version 0.1 called it."""


def write_old_bundle(folder: Path, bundle: Path) -> Path:
    """Write a bundle as version 0.1 did, from one of now: a folder with a json and a safetensors file."""
    document, tensors = read_parts(bundle)
    weights = save(tensors, metadata={"format": "1"})
    parts = document.get("sensors", {"": document})
    for fields in (document, *parts.values()):
        for name in NEW_FIELDS:
            fields.pop(name, None)
        for name, former in FORMER_FIELDS.items():
            if name in fields:
                fields[former] = fields.pop(name)
        if "aspect" in fields:
            fields["aspect"] = FORMER_ASPECTS.get(fields["aspect"], fields["aspect"])
    document["format"] = 2 if "sensors" in document else 1
    document["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    return _write_old(folder, document, weights)


def _write_old(folder: Path, document: dict[str, Any], weights: bytes) -> Path:
    document.pop("sha256", None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    document["sha256"] = hashlib.sha256(text.encode("ascii")).hexdigest()
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "bundle.json").write_text(
        json.dumps(document, indent=2), encoding="utf-8"
    )
    return folder


def zip_old_bundle(
    file: Path, folder: Path, compression: int = zipfile.ZIP_STORED
) -> Path:
    """Write the folder of an old bundle as version 0.1 zipped it, and return the zip."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return file

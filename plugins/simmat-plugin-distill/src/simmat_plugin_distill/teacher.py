"""The teacher's masks, made once and kept as a data set of the student's images."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import simmat
from simmat.config import TrainConfig
from simmat.data.card import write_card
from simmat.data.samples import SPLITS
from simmat.errors import ConfigError
from simmat.inference import coco_document, run_lengths
from simmat.io.files import atomic_write_json, output_errors
from simmat.io.reading import read_json
from simmat.plugins.registry import Registry
from simmat.predictor import EverythingSettings, Predictor
from simmat.sensors.adapter import options_of
from simmat_plugin_distill.pairs import Files, Pairs, joined_sensor

SEARCH = EverythingSettings(grid=16, stability=0.8, overlap=0.7)
"""How a teacher without a dense head finds objects: a quarter of SAM's clicks, and more masks of parts and wholes."""
_MAX_BYTES = 2**30
"""Largest file of the masks of an image."""


def load_teacher(
    teacher: str, modality: str | None, image_size: int | None, config: TrainConfig, registry: Registry
) -> Predictor:
    """Load a bundle, or an untuned foundation model for a sensor, whose options are those of the data card.

    Raises:
        ConfigError: the teacher's decoder is random, or a bundle is given another sensor or size.
        SimMATError: names, files or weights are wrong.
    """
    is_bundle = teacher not in registry.names("foundation model") and (
        Path(teacher).exists() or teacher.startswith(("hf://", ".", "/", "~")) or teacher.count("/") > 1
    )
    if not is_bundle:
        sensor = modality or "rgb"
        joined, _ = joined_sensor(config, sensor, registry)
        own = {part.name for part in registry.modality(sensor).sensors()}
        options = {name: values for name, values in options_of(joined).items() if name in own}
        return simmat.load(
            foundation=teacher,
            modality=sensor,
            modality_options=options,
            image_size=image_size,
            device=config.device,
            registry=registry,
        )
    if image_size is not None:
        raise ConfigError(
            f"--teacher-image-size is for an untuned teacher; the bundle {teacher} has its own; leave it out"
        )
    predictor = simmat.load(teacher, device=config.device, registry=registry)
    if modality not in (None, predictor.adapter.name):
        raise ConfigError(
            f"--teacher-modality {modality}: the bundle {teacher} is of {predictor.adapter.name}; leave it out"
        )
    return predictor


def write_masks(pairs: Pairs, teacher: Predictor, folder: Path, *, progress: Callable[[int], object]) -> None:
    """Write the student's images, as links, and the teacher's masks as a data set with COCO annotations.

    Masks may overlap: parts and wholes. The masks of an image that an earlier call has made stay, if teacher and files
    are the same. `progress` is called with 1 after each image.

    Raises:
        DataError: an image cannot be read.
        OutputError: a file cannot be written.
    """
    reference = pairs.student.source_names()[0]
    images: dict[str, list[tuple[str, tuple[int, int], list[Mapping[str, Any]]]]] = {split: [] for split in SPLITS}
    for sample in pairs.samples:
        name = posixpath.normpath(f"/{sample.id}").strip("/")  # an id from a manifest may be any text
        files = pairs.student_files(sample)
        for source, file in files.items():
            _link(file, folder / "images" / source / f"{name}{file.suffix}")
        record = _masks_of(teacher, pairs.teacher_files(sample), folder / "found" / f"{name}.json")
        height, width = record["size_hw"]
        images[sample.split].append((f"{name}{files[reference].suffix}", (height, width), record["objects"]))
        progress(1)
    write_card(folder, pairs.card)
    for split, found in images.items():
        path = folder / "annotations" / f"{split}.json"
        if found:
            atomic_write_json(path, coco_document(found, {}))
        else:
            path.unlink(missing_ok=True)  # of an earlier call with other splits


def _masks_of(teacher: Predictor, files: Files, path: Path) -> dict[str, Any]:
    """Return the teacher's masks of an image, from a file if that is of the same teacher and image."""
    seen = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files.values()]
    request = hashlib.sha256(repr((teacher.digest, SEARCH, seen)).encode()).hexdigest()
    if path.is_file():
        record: dict[str, Any] = read_json(path, "masks of a teacher", limit=_MAX_BYTES)
        if record.get("request") == request:
            return record
    image = teacher.open_image(files)
    size_hw = image.reader.size_hw
    objects = [
        {
            "class": None,
            "score": round(float(found.score), 6),
            "box_xyxy": list(found.instance.box_xyxy),
            "area": found.instance.area,
            "segmentation": run_lengths(found.instance, size_hw),
        }
        for found in image.segment_everything(SEARCH)
    ]
    record = {"request": request, "size_hw": list(size_hw), "objects": objects}
    atomic_write_json(path, record)
    return record


def _link(file: Path, place: Path) -> None:
    """Link a file, unless it is; copy it where links are not allowed."""
    if place.is_symlink() and os.readlink(place) == str(file.absolute()):
        return
    with output_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.symlink(file.absolute(), place)
        except OSError:
            shutil.copyfile(file, place)

"""The teacher's masks and embeddings, made once and kept as a data set of the student's images."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import simmat
from simmat.config import TrainConfig
from simmat.data.card import write_card
from simmat.data.formats.coco import draw_segmentation
from simmat.data.instances import region_from_mask
from simmat.data.samples import SPLITS, Sample, name_of_files
from simmat.errors import ConfigError, DataError
from simmat.inference import coco_document, run_lengths
from simmat.io.files import atomic_write_json, output_errors, require_inside
from simmat.io.paths import require_file
from simmat.io.reading import read_json
from simmat.io.states import file_states
from simmat.nn.tensor_files import read_safetensors
from simmat.plugins.registry import Registry
from simmat.predictor import EverythingSettings, Predictor
from simmat.sensors.adapter import options_of
from simmat.sensors.warp import EACH_FILE
from simmat.types import BoolArray
from simmat_plugin_distill.matching import EMBEDDINGS, write_embedding
from simmat_plugin_distill.pairs import Pairs, joined_sensor

SEARCH = EverythingSettings(
    grid=16, skip_covered=False, alternatives=False, grid_score=0.5, overlap=0.7
)
"""What a teacher without a dense head teaches: its answers to a grid of clicks, a quarter of SAM's."""


def load_teacher(
    teacher: str,
    modality: str | None,
    image_size: int | None,
    config: TrainConfig,
    registry: Registry,
) -> Predictor:
    """Load a bundle, or an untuned foundation model for a sensor, whose options are those of the data card.

    Raises:
        ConfigError: the teacher's decoder is random, or a bundle is given another sensor or size.
        SimMATError: names, files or weights are wrong.
    """
    of_family = teacher.partition("/")[0] in registry.names("foundation family")
    is_path = (
        Path(teacher).exists()
        or teacher.startswith(("hf://", ".", "/", "~"))
        or teacher.count("/") > 1
    )
    if of_family or teacher in registry.names("foundation model") or not is_path:
        sensor = modality or "rgb"
        joined, _ = joined_sensor(config, sensor, registry)
        own = {part.name for part in registry.modality(sensor).sensors()}
        options = {
            name: values for name, values in options_of(joined).items() if name in own
        }
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


def write_masks(
    pairs: Pairs,
    teacher: Predictor,
    folder: Path,
    *,
    progress: Callable[[int], object],
    embeddings: bool = False,
    tolerance: int = 0,
) -> int:
    """Write the student's images, as links, and the teacher's masks as a data set with COCO annotations.

    Masks may overlap: parts and wholes. What an earlier call has made of an image stays, if teacher and files are the
    same.

    Args:
        progress: called with 1 after each image.
        embeddings: keep the teacher's embeddings, too, in `embeddings/`.
        tolerance: pixels around the borders of masks that are ignored.

    Returns:
        The longer side of the smallest image in pixels.

    Raises:
        DataError: an image cannot be read.
        OutputError: a file cannot be written, or a link leads out of the folder.
    """
    reference = pairs.student.source_names()[0]
    images: dict[str, list[tuple[str, tuple[int, int], list[Mapping[str, Any]]]]] = {
        split: [] for split in SPLITS
    }
    require_inside(folder, folder / "annotations")
    each: dict[Path, dict[str, Any]] = {}
    for sample in pairs.samples:
        name = name_of_files(sample.id)
        files = pairs.student_files(sample)
        for source, file in files.items():
            place = folder / "images" / source / f"{name}{file.suffix}"
            require_inside(folder, place.parent)
            _link(file, place)
            alignment = pairs.card.alignment.get(source)
            if alignment is not None and alignment.matrix is None:
                matrices = each.setdefault(place.parent, {})
                matrices[place.name] = alignment.matrix_of(file).tolist()
        masks = folder / "found" / f"{name}.json"
        kept = folder / EMBEDDINGS / f"{name}.safetensors"
        require_inside(folder, masks.parent, kept.parent)
        record = _found_in(pairs, sample, teacher, masks, kept, embeddings)
        height, width = record["size_hw"]
        images[sample.split].append(
            (f"{name}{files[reference].suffix}", (height, width), record["objects"])
        )
        progress(1)
    write_card(folder, pairs.card)
    for place, matrices in each.items():
        atomic_write_json(place / EACH_FILE, {"format": 1, "matrices": matrices})
    for split, found in images.items():
        path = folder / "annotations" / f"{split}.json"
        if found:
            document = coco_document(found, {})
            # here the masks of a model are the ground truth, and validate
            for annotation in document["annotations"]:
                del annotation["score"]
            if tolerance:
                _ignore_borders(document, tolerance)
            atomic_write_json(path, document)
        else:
            path.unlink(missing_ok=True)  # of an earlier call with other splits
    return min(max(size_hw) for found in images.values() for _, size_hw, _ in found)


def _found_in(
    pairs: Pairs,
    sample: Sample,
    teacher: Predictor,
    path: Path,
    kept: Path,
    embeddings: bool,
) -> dict[str, Any]:
    """Return the teacher's masks of an image, from a file if that is of the same teacher and image; keep its embedding.

    The masks are on the student's pixel grid.

    Files that are damaged are made again.

    Args:
        path: of the masks.
        kept: of the embedding, if it is wanted.
    """
    files = pairs.teacher_files(sample)
    read = list(files.values())
    alignments = []
    if pairs.aligned is not None:
        read += pairs.student_files(sample).values()
        alignments = [str(pairs.aligned.alignments)]
    seen = []
    for file in read:
        for state in file_states(str(file)):
            seen.append((state.name, state.size, state.mtime_ns))
    asked = (teacher.digest, teacher.pipeline.size, SEARCH, seen, *alignments)
    request = hashlib.sha256(repr(asked).encode()).hexdigest()
    record: dict[str, Any] = {}
    with suppress(DataError):
        record = read_json(path, "masks of a teacher")
    if not isinstance(record, dict) or record.get("request") != request:
        record = {}
        for old in (path, kept):  # both, as an embedding is written before its masks
            old.unlink(missing_ok=True)
    with suppress(DataError):
        if record and (not embeddings or read_safetensors(kept, error=DataError)):
            return record
    if pairs.aligned is None:
        image = teacher.open_image(files)
    else:
        image = teacher.open_image(pairs.teacher_image(sample))
    size_hw = image.reader.size_hw
    if embeddings:
        image = teacher.open_reader(image.reader, tile=max(size_hw))  # one window
        _, encoded = image.encode_window(image.windows[0])
        if encoded is None:
            raise DataError(
                f"{image.reader.origin}: no pixel holds a measurement; remove this pair"
            )
        write_embedding(kept, encoded.embedding)
    if record:
        return record
    objects = [
        {
            "class": None,
            "score": round(float(one.score), 6),
            "box_xyxy": list(one.instance.box_xyxy),
            "area": one.instance.area,
            "segmentation": run_lengths(one.instance, size_hw),
        }
        for one in image.segment_everything(SEARCH)
    ]
    record = {"request": request, "size_hw": list(size_hw), "objects": objects}
    atomic_write_json(path, record)
    return record


def _ignore_borders(document: dict[str, Any], reach: int) -> None:
    """Add what is nearer than `reach` pixels to the border of a mask as a crowd of its image, which is ignored."""
    bands: dict[int, BoolArray] = {}
    sizes = {
        image["id"]: (image["height"], image["width"]) for image in document["images"]
    }
    for annotation in document["annotations"]:
        number = annotation["image_id"]
        mask = draw_segmentation(annotation["segmentation"], sizes[number])
        near = ndimage.maximum_filter(mask, 2 * reach + 1) != ndimage.minimum_filter(
            mask, 2 * reach + 1
        )
        bands[number] = bands.get(number, np.zeros(sizes[number], np.bool_)) | near
    for number, band in bands.items():
        if (region := region_from_mask(band, None)) is not None:
            y0, x0, y1, x1 = region.window
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number,
                    "category_id": document["categories"][0]["id"],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": region.area,
                    "iscrowd": 1,
                    "segmentation": run_lengths(region, sizes[number]),
                }
            )


def _link(file: Path, place: Path) -> None:
    """Link a file, unless it is; copy it where links are not allowed."""
    require_file(
        file, "image", hint="frames of a file are not linked; save each frame as a file"
    )
    if place.is_symlink() and os.readlink(place) == str(file.absolute()):
        return
    with output_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.symlink(file.absolute(), place)
        except OSError:
            shutil.copyfile(file, place)

"""The pairs of images of a folder, and the alignment that its data card states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from simmat.data.card import CARD_FILE, load_card
from simmat.data.formats.coco import annotation_files, read_coco
from simmat.data.formats.folders import find_samples
from simmat.data.formats.manifest import MANIFEST_FILE, read_manifest
from simmat.data.samples import Sample
from simmat.documents import read_toml
from simmat.errors import ConfigError
from simmat.io.files import atomic_write_text
from simmat.io.paths import require_folder
from simmat.sensors.adapter import (
    ModalityAdapter,
    load_sample,
    options_for_card,
    with_data_card,
)
from simmat.sensors.warp import Alignment
from simmat.types import SensorImage


@dataclass(frozen=True)
class Camera:
    """One of the cameras of a rig.

    Attributes:
        sensor: the adapter of its images.
        sources: its own names of its files -> their names in a sample.
    """

    sensor: ModalityAdapter
    sources: Mapping[str, str]

    @property
    def source(self) -> str:
        """The source that has its pixel grid."""
        return next(iter(self.sources.values()))

    def load(self, sample: Sample) -> SensorImage:
        """Read its image of a sample."""
        return load_sample(
            self.sensor,
            {own: sample.files[name] for own, name in self.sources.items()},
        )


@dataclass(frozen=True)
class Rig:
    """A folder of images by several cameras.

    Attributes:
        root: the folder.
        cameras: the one that has the pixel grid first.
        samples: one for each moment, with the files of all cameras; none of the test split.
        options: of the sensors, as the data card should state them: those that it states, and those that were given.
        before: source -> alignment that the data card states already.
    """

    root: Path
    cameras: Sequence[Camera]
    samples: Sequence[Sample]
    options: Mapping[str, Any]
    before: Mapping[str, Alignment]


def open_rig(root: Path, adapter: ModalityAdapter) -> Rig:
    """Find the images of all cameras in a folder, which may have masks or none.

    Raises:
        ConfigError: the sensor is a single one, or the data card is wrong, or aligns other sources with another one.
        DataError: files are missing.
    """
    if len(adapter.sensors()) == 1 and len(adapter.cameras()) == 1:
        raise ConfigError(
            f"modality {adapter.name!r} is one sensor, whose files share one pixel grid; name the sensors to align, "
            "the one with the pixel grid of the masks first: --modality rgb+thermal. Files per band are aligned if a "
            "sensor.toml has a [[source]] for each band"
        )
    require_folder(root, "it has images/SOURCE/ID for each sensor, or a manifest.csv")
    card = load_card(root, {}, defaults={"regions": "instances"})
    options = options_for_card(card.modality_options, adapter)
    before = card.alignment
    card = card.model_copy(update={"alignment": {}})
    adapter = with_data_card(adapter, card.model_dump())
    _check_reference(root, before, adapter.source_names())
    annotations = annotation_files(root)
    if annotations:
        samples = read_coco(root, adapter.sources, annotations)[0]
    elif (root / MANIFEST_FILE).exists():
        samples = read_manifest(root, adapter.sources, masks=False)
    else:
        samples = find_samples(root, adapter.sources, masks=False)
    names = iter(adapter.source_names())
    cameras = []
    for sensor in adapter.sensors():
        for camera in sensor.cameras():
            sources = {source: next(names) for source in camera.source_names()}
            cameras.append(Camera(camera, sources))
    used = [sample for sample in samples if sample.split != "test"]
    return Rig(root, cameras, used or samples, options, before)


def _check_reference(
    root: Path, stated: Mapping[str, Alignment], sources: Sequence[str]
) -> None:
    """Raise ConfigError if sources that stay in a card are aligned with another one than the first of `sources`."""
    for source, alignment in stated.items():
        if source not in sources and alignment.reference != sources[0]:
            raise ConfigError(
                f"{root / CARD_FILE}: aligns {source} with {alignment.reference}, but all alignments of a card have "
                f"one reference, which would be {sources[0]}; name {alignment.reference} first, or remove "
                f"[alignment.{source}] from the card"
            )


def write_alignments(
    root: Path,
    found: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any] | None = None,
) -> Path:
    """State alignments in the data card of a folder; its other fields stay.

    Args:
        root: the folder.
        found: source -> fields. Their reference is no longer aligned itself.
        options: of the sensors, as the card should state them; None changes nothing.

    Raises:
        ConfigError: there is a card that cannot be read.
        OutputError: it cannot be written.
    """
    path = root / CARD_FILE
    stated: dict[str, Any] = {}
    text = ""
    if path.exists():
        stated = read_toml(path, "data card")
        text = path.read_text("utf-8-sig").rstrip("\n") + "\n\n"
    before = stated.pop("alignment", {})
    references = {fields["reference"] for fields in found.values()}
    kept = {
        source: fields for source, fields in before.items() if source not in references
    }
    tables: dict[str, Any] = {"alignment": {**kept, **found}}
    is_replaced = bool(before)
    if options and options != stated.get("modality_options", {}):
        is_replaced = is_replaced or "modality_options" in stated
        stated.pop("modality_options", None)
        tables["modality_options"] = options
    if is_replaced or not stated:  # else comments can stay, before new tables
        text = tomli_w.dumps({"format": 1, **stated, **tables})
    else:
        text += tomli_w.dumps(tables)
    atomic_write_text(path, text)
    return path


def pairs_of(
    rig: Rig, camera: Camera, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, SensorImage, SensorImage]]:
    """Yield each sample with the images of the first camera and of another."""
    for sample in samples:
        yield sample, rig.cameras[0].load(sample), camera.load(sample)

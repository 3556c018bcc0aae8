"""Write what was found in an image in the formats a user asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from simmat.errors import ConfigError, unknown_name
from simmat.results.coco import ImageRecords, coco_document, object_records
from simmat.results.labels import require_place, write_geotiff, write_labels
from simmat.results.overlay import draw_result
from simmat.results.result import ImageResult

FORMATS = ("labels", "coco", "geotiff", "overlay")


def check_formats(formats: Sequence[str], *, kind: str) -> None:
    """Check before any work that the formats exist, suit what is looked for, and that their libraries are installed.

    Args:
        formats: names of `FORMATS`.
        kind: "objects" or "classes".

    Raises:
        UnknownNameError: there is no such format.
        ConfigError: no format is named, COCO is asked for a class map, or a library is missing.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    if not formats:
        raise ConfigError(f"no format is named; allowed: {', '.join(FORMATS)}")
    if kind == "classes" and "coco" in formats:
        raise ConfigError("format coco holds objects, not class maps; use labels, geojson, gpkg or geotiff")


def write_result(result: ImageResult, formats: Sequence[str], folder: Path) -> list[str]:
    """Write what was found in an image.

    Args:
        result: of one image.
        formats: names of `FORMATS`, checked by `check_formats`.
        folder: an existing folder, such as one of `staged_files`, from which files are moved when all are whole.

    Returns:
        The names of the files, in the order of `FORMATS`.

    Raises:
        DataError: the image has no georeference and a format needs one.
        OutputError: a file cannot be written.
    """
    check_formats(formats, kind=result.kind)
    place = require_place(result.georeference, result.file_name) if "geotiff" in formats else None
    names: list[str] = []
    if "labels" in formats:
        names.append(write_labels(result, folder))
    if "coco" in formats:
        names.append(f"{result.name}_coco.json")
        records = ImageRecords(result.file_name, result.size_hw, object_records(result))
        text = json.dumps(coco_document([records], result.class_names), ensure_ascii=False, allow_nan=False)
        (folder / names[-1]).write_text(text + "\n", encoding="utf-8")
    if place is not None:
        names.append(write_geotiff(result, place, folder))
    if "overlay" in formats:
        names.append(f"{result.name}_overlay.png")
        draw_result(result).save(folder / names[-1])
    return list(dict.fromkeys(names))

"""What is kept of an output: a digest of its content, and what it must be like on any machine."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sqlite3
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from safetensors.numpy import load_file

Entry = dict[str, Any]
"""What is kept of one output: `like`, and `digest`, `share` or `score` where it has one."""

CHANGING = ("bundle", "cost", "machine", "request", "seconds", "versions")
"""Keys of json whose values differ between runs, machines or versions, as do all that end with `sha256`."""
DECIMALS = 4
"""Of scores."""
GEO_TAGS = (33550, 33922, 34735, 42113)
"""GeoTIFF: scale of a pixel, tie point, keys of the coordinate system, nodata."""


def describe_file(path: Path, root: Path) -> Entry:
    """Describe a file by what its readers see in it.

    Args:
        path: of the file.
        root: a folder whose place must not matter; its path is left out of texts.
    """
    if "overlay" in path.name:
        # its size depends on that of letters
        return {"digest": _digest(_pixels(path).tobytes()), "like": "a picture"}
    if path.name in ("report.json", "report.html"):
        # of a training; it holds what a tenth of the training's time allows
        return {"like": "a report"}
    match path.suffix:
        case ".png" | ".jpg":
            return describe_array(_pixels(path))
        case ".tif":
            return _tiff(path)
        case ".npy":
            return describe_array(np.load(path))
        case ".safetensors":
            return describe_tensors(load_file(path))
        case ".json" | ".geojson":
            return describe_values(json.loads(_text(path, root)))
        case ".jsonl":
            return describe_values(
                [json.loads(line) for line in _text(path, root).splitlines()]
            )
        case ".toml":
            return describe_values(tomllib.loads(_text(path, root)))
        case ".csv":
            rows = list(csv.reader(_text(path, root).splitlines()))
            return {
                "digest": _digest(json.dumps(rows).encode()),
                "like": f"columns {', '.join(rows[0])}",
            }
        case ".gpkg":
            return describe_values(_tables(path))
        case ".html":
            headings = re.findall(
                r"<h2[^>]*>(.*?)</h2>", _text(path, root), flags=re.DOTALL
            )
            return {"like": f"headings {', '.join(headings)}"}
        case _:
            return {"like": "a file"}


def describe_array(values: npt.NDArray[Any]) -> Entry:
    """Describe an array by its digest, its form, and the share of it that is not 0."""
    return {
        "digest": _digest(np.ascontiguousarray(values).tobytes()),
        "like": f"{values.dtype} {'x'.join(str(side) for side in values.shape)}",
        "share": round(float(np.mean(values != 0)), 3),
    }


def describe_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> Entry:
    """Describe named tensors, in whatever file and order they lie."""
    digests = {
        name: describe_array(tensors[name])["digest"] for name in sorted(tensors)
    }
    return {
        "digest": _digest(json.dumps(digests).encode()),
        "like": f"{len(digests)} tensors",
    }


def describe_values(values: Any) -> Entry:
    """Describe what a json holds, without times, versions and digests; on any machine its first keys."""
    kept = without_changing(values)
    like = f"a {type(kept).__name__}"
    if isinstance(kept, dict):
        like = f"keys {', '.join(sorted(kept))}"
    return {"digest": _digest(json.dumps(kept, sort_keys=True).encode()), "like": like}


def score(value: float) -> Entry:
    """Describe a score."""
    return {"score": round(float(value), DECIMALS)}


def without_changing(value: Any) -> Any:
    """Return a copy of a json value without the keys whose values differ between runs."""
    if isinstance(value, dict):
        kept = [key for key in value if not _changes(key)]
        return {key: without_changing(value[key]) for key in kept}
    if isinstance(value, list):
        return [without_changing(inner) for inner in value]
    return value


def _changes(key: str) -> bool:
    return key in CHANGING or key.endswith("sha256")


def _text(path: Path, root: Path) -> str:
    return path.read_text(encoding="utf-8").replace(str(root), "ROOT")


def _pixels(path: Path) -> npt.NDArray[Any]:
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.dtype == np.int32:  # older Pillow holds 16-bit grey in 32 bits
        return values.astype(np.uint16)
    return values


def _tiff(path: Path) -> Entry:
    with tifffile.TiffFile(path) as file:
        pages = [page.asarray() for page in file.pages]
        tags = {
            tag: str(file.pages[0].tags[tag].value)
            for tag in GEO_TAGS
            if tag in file.pages[0].tags
        }
    entry = describe_array(
        pages[0]
        if len(pages) == 1
        else np.concatenate([page.ravel() for page in pages])
    )
    if tags:
        entry["digest"] = _digest(f"{entry['digest']} {tags}".encode())
        entry["like"] += " on a map"
    return entry


def _tables(path: Path) -> dict[str, list[str]]:
    """Return the rows of each layer of a GeoPackage."""
    with sqlite3.connect(path) as file:
        names = [
            name
            for (name,) in file.execute(
                "select table_name from gpkg_contents order by 1"
            )
        ]
        return {
            name: [repr(row) for row in file.execute(f'select * from "{name}"')]
            for name in names
        }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

"""Read bundles of version 0.1: a folder, or a zip of one, with `bundle.json` and `weights.safetensors`."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from safetensors.torch import load

from simmat.bundle.format import MAX_JSON_BYTES, Tensors, check_finite, damaged
from simmat.errors import BundleError
from simmat.io.reading import MAX_BYTES, parse_json, read_bytes
from simmat.nn.tensor_files import check_dimensions, first_line

JSON_NAME = "bundle.json"
WEIGHTS_NAME = "weights.safetensors"
ZIP_SUFFIX = ".zip"
_FORMATS = (1, 2)
"""Of a bundle of one sensor, and of several."""


def old_bundle_at(path: Path) -> Path | None:
    """Return the folder of the old bundle that a path stands for, itself or of a run; None if there is none."""
    for folder in (path, path / "bundle"):
        if (folder / JSON_NAME).exists():
            return folder
    return None


def read_old(place: Path) -> tuple[dict[str, Any], Tensors]:
    """Read and check json and tensors of an old bundle, a folder or a zip; an exported model has no tensors.

    Raises:
        BundleError: it is damaged, or a zip of something else.
    """
    try:
        document = parse_json(_content(place, JSON_NAME, MAX_JSON_BYTES))
        if not isinstance(document, dict):
            raise ValueError(f"{JSON_NAME} must be a table")
        _check_document(document)
        document["sha256"] = digest = document.pop("weights_sha256", None)
        if document.get("exported") is not None:
            return document, {}
        content = _content(place, WEIGHTS_NAME, MAX_BYTES)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(
                f"the sha256 of {WEIGHTS_NAME} is not the one in {JSON_NAME}"
            )
        tensors = load(content)
        check_dimensions(tensors)
    except BundleError:
        raise
    except Exception as error:  # the kinds differ between versions of safetensors
        raise damaged(place, first_line(error)) from error
    check_finite(place, tensors)
    return document, tensors


def _check_document(document: dict[str, Any]) -> None:
    """Raise ValueError for a json of another format, or whose digest is not that of its content; remove its format."""
    plain = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    if document.pop("format", None) not in _FORMATS:
        raise ValueError(f"{JSON_NAME} does not belong to a bundle of version 0.1")
    if hashlib.sha256(text.encode("ascii")).hexdigest() != document.get("sha256"):
        raise ValueError(
            f"a value in {JSON_NAME} was changed: its sha256 is not the one stored in it"
        )


def _content(place: Path, name: str, limit: int) -> bytes:
    """Return a file of an old bundle."""
    if place.is_dir():
        return read_bytes(place / name, "bundle", limit=limit, error=BundleError)
    with zipfile.ZipFile(place) as archive:
        entry = archive.getinfo(name)
        # so that no entry is larger than the zip
        if entry.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"{place} is a zip that SimMAT did not write; unpack it and give the folder"
            )
        if entry.file_size > limit:
            raise BundleError(
                f"{place}: {name} has {entry.file_size} bytes, at most {limit} are allowed"
            )
        return archive.read(entry)

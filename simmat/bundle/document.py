"""Read and write `bundle.json`, which holds a digest of its own content.

The digest guards against damage and mistakes in an editor. It is not a signature: it says nothing about who made the
bundle or whether to trust it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, JsonValue
from safetensors.torch import save
from torch import Tensor

import simmat
from simmat.bundle.files import JSON_NAME, SIZE_LIMITS, WEIGHTS_NAME, bundle_folder, read_weights
from simmat.documents import validate
from simmat.errors import BundleError
from simmat.io.files import atomic_folder, atomic_write_bytes, atomic_write_json, parse_json, read_bytes, recover_folder
from simmat.io.weights import sha256_of
from simmat.model_spec import ModelSpec
from simmat.types import is_finite_number

FORMAT = 1
"""Raised with every change that an older reader would misread."""
_DIGEST = "sha256"
"""Field of the json's own digest."""


class BundleSpec(ModelSpec):
    """The content of `bundle.json`.

    Attributes:
        metrics: scores on the validation split, with their step and protocol.
        versions: versions of the software that wrote it.
        exported: name of the `ModelFormat` of the files beside it, in place of weights; None for weights.
    """

    format: Literal[1]
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    weights_sha256: str
    versions: dict[str, str]
    exported: str | None = None

    def problems(self) -> Iterator[str]:
        """Yield contradictions, and a score that is not a number."""
        yield from super().problems()
        scores = self.metrics.get("val") or {}
        score = scores.get("miou_object") if isinstance(scores, dict) else scores
        if score is not None and not is_finite_number(score):
            yield f"metrics.val.miou_object must be a number, got {score!r}"


def read_bundle_spec(path: Path) -> BundleSpec:
    """Read the spec of a bundle, a folder or a zip, without its weights; raise BundleError if that fails."""
    with bundle_folder(path, (JSON_NAME,)) as folder:
        return read_spec(folder)


def check_bundle(path: Path) -> None:
    """Raise BundleError if a bundle's folder is missing, damaged or of a newer format; builds no network."""
    read_weights(path, read_spec(path).weights_sha256)


def read_spec(folder: Path) -> BundleSpec:
    """Read the spec in the folder of a bundle; raises as `read_bundle_spec`."""
    if (folder / "bundle").is_dir() and not (folder / JSON_NAME).exists():
        raise BundleError(f"{folder} is a run folder, not a bundle; use {folder / 'bundle'}")
    recover_folder(folder)
    file = folder / JSON_NAME
    if not file.exists():
        raise BundleError(f"no bundle at {folder}: a bundle is a folder with {JSON_NAME} and {WEIGHTS_NAME}")
    content = read_bytes(file, "bundle", limit=SIZE_LIMITS[JSON_NAME], error=BundleError)
    try:
        document = parse_json(content)
        if not isinstance(document, dict):
            raise ValueError("it must be a table")
        if (found := document.get("format")) != FORMAT:
            raise BundleError(
                f"{folder} has bundle format {found}, this is simmat {simmat.__version__} which reads format {FORMAT}; "
                "upgrade with `pip install --upgrade simmat`"
            )
        plain = {key: value for key, value in document.items() if key != _DIGEST}
        if document.get(_DIGEST) != _digest(plain):
            raise ValueError(f"a value in it was changed: the {_DIGEST} of its content is not the one in it")
        return validate(BundleSpec, plain)
    except ValueError as error:
        raise BundleError(f"{file} is damaged ({error}); copy or train the bundle again") from error


def write_bundle(
    path: Path, spec: ModelSpec, tensors: Mapping[str, Tensor], metrics: Mapping[str, Any] | None = None
) -> None:
    """Write a bundle of `trained_tensors`; after a crash there is the old one or the new one, whole.

    No time and no path goes in, so equal runs give equal files.
    """
    with atomic_folder(path) as folder:
        atomic_write_bytes(folder / WEIGHTS_NAME, save(dict(tensors), metadata={"format": str(FORMAT)}))
        document = {
            "format": FORMAT,
            **spec.model_dump(mode="json", include=set(ModelSpec.model_fields)),
            "metrics": dict(metrics or {}),
            "weights_sha256": sha256_of(folder / WEIGHTS_NAME),
            "versions": {"simmat": simmat.__version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        atomic_write_json(folder / JSON_NAME, sealed(document))


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's json with its digest as the last field; a digest that it has already is replaced."""
    plain = {key: value for key, value in json.loads(json.dumps(document)).items() if key != _DIGEST}
    return {**plain, _DIGEST: _digest(plain)}


def _digest(plain: Mapping[str, Any]) -> str:
    """Return the sha256 of json values in their canonical form: keys sorted, ASCII, no spaces."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()

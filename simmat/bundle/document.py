"""`bundle.json`: read, and refused where it is damaged, of a newer format, or beside other weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

import simmat
from simmat.bundle.digest import check_seal
from simmat.bundle.opened import bundle_folder
from simmat.bundle.spec import FORMAT, JSON_NAME, WEIGHTS_NAME, BundleSpec
from simmat.bundle.tensors import read_tensors
from simmat.bundle.zipped import SIZE_LIMITS
from simmat.config import MOST_SIZE
from simmat.documents import InvalidDocument
from simmat.errors import BundleError, SpecError
from simmat.files import parse_json, read_bytes, recover_folder, require_file
from simmat.geometry import Aspect
from simmat.types import is_finite_number
from simmat.weights import sha256_of


def read_bundle_spec(path: Path) -> BundleSpec:
    """Read what a bundle, a folder or a zip, says of itself; no weights are loaded.

    Raises:
        BundleError: there is no bundle, it is damaged, or of a newer format.
    """
    with bundle_folder(path, (JSON_NAME,)) as folder:
        return BundleSpec.from_dict(read_document(folder))


def check_bundle(path: Path) -> None:
    """Check that a bundle is there and whole, without building its network.

    Raises:
        BundleError: it is missing, damaged, or of a newer format, or its weights are not finite.
    """
    read_tensors(check_weights(path, read_document(path)["weights_sha256"]))


def read_document(path: Path) -> dict[str, Any]:
    """Return a bundle's json, checked; raises as `read_bundle_spec`."""
    if (path / "bundle").is_dir() and not (path / JSON_NAME).exists():
        raise BundleError(f"{path} is a run folder, not a bundle; use {path / 'bundle'}")
    recover_folder(path)
    file = path / JSON_NAME
    if not file.exists():
        raise BundleError(f"no bundle at {path}: a bundle is a folder with {JSON_NAME} and {WEIGHTS_NAME}")
    content = read_bytes(file, "bundle", limit=SIZE_LIMITS[JSON_NAME], error=BundleError)
    try:
        document = parse_json(content)
        found = document["format"]
        if found != FORMAT:
            raise BundleError(
                f"{path} has bundle format {found}, this is simmat {simmat.__version__} which reads format {FORMAT}; "
                "upgrade with `pip install --upgrade simmat`"
            )
        check_seal(document)
        checked_spec(document)
        str(document["weights_sha256"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, SpecError) as error:
        why = _in_words(error)
        raise BundleError(f"{file} is damaged ({why}); copy or train the bundle again") from error
    return dict(document)


def check_weights(path: Path, sha256: str) -> Path:
    """Return a bundle's weight file; BundleError where it is missing or not the one its json names."""
    file = path / WEIGHTS_NAME
    if not file.exists():
        raise BundleError(f"{file} is missing; copy or train the bundle again")
    require_file(file, "weight file", error=BundleError)
    if sha256_of(file) != sha256:
        raise BundleError(
            f"{file} is damaged: its sha256 is not the one in {JSON_NAME}; copy or train the bundle again"
        )
    return file


def checked_spec(values: Mapping[str, Any]) -> BundleSpec:
    """Read what a bundle says of itself from json values.

    Raises:
        LookupError, TypeError, ValueError, SpecError: values are missing, of a wrong type, or such as no training
            writes, which would fail somewhere deep in the network.
    """
    spec = BundleSpec.from_dict(values)
    _check_values(spec)
    return spec


def _check_values(spec: BundleSpec) -> None:
    whole = (("seed", spec.seed, 0, 2**63 - 1), ("image_size", spec.image_size, 1, MOST_SIZE))
    for what, number, low, high in whole:  # the bounds of a training's config
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(f"{what} must be a whole number from {low} to {high}, got {number!r}")
    for what, name in (
        ("modality", spec.modality),
        ("foundation", spec.foundation),
        ("mat", spec.mat),
        ("tune", spec.tune),
    ):
        if not isinstance(name, str):
            raise ValueError(f"{what} {name!r} must be a name")
    if not isinstance(spec.foundation_sha256, str | None):
        raise ValueError(f"the foundation's sha256 {spec.foundation_sha256!r} must be a text")
    if spec.aspect not in get_args(Aspect):
        raise ValueError(f"aspect {spec.aspect!r} is none of {', '.join(get_args(Aspect))}")
    if problems := [problem for declaration in spec.described for problem in declaration.problems()]:
        raise ValueError(f"described: {'; '.join(problems)}")
    if not isinstance(spec.mat_options, Mapping) or not isinstance(spec.tune_options, Mapping):
        raise ValueError("options must be tables")
    if not isinstance(spec.metrics, Mapping):
        raise ValueError(f"metrics {spec.metrics!r} must be a table")
    score = (spec.metrics.get("val") or {}).get("miou_object")
    if score is not None and not is_finite_number(score):
        raise ValueError(f"metrics: miou_object {score!r} must be a number")
    if spec.picks is not None and not all(isinstance(pick, str | int) for pick in spec.picks):
        raise ValueError(f"picks {spec.picks!r} must be names or numbers of channels")
    if not all(is_finite_number(value) for row in spec.zero_shot for value in row):
        raise ValueError("zero_shot must hold finite numbers")
    found = spec.statistics
    for what, numbers in (("mean", found.mean), ("std", found.std), ("pixels", found.pixels)):
        if len(numbers) != len(spec.channels) or not all(is_finite_number(number) for number in numbers):
            raise ValueError(f"statistics: {what} must be {len(spec.channels)} numbers, one for each channel")
    if not spec.channels or np.shape(spec.zero_shot) != (3, len(spec.channels)):
        raise ValueError(f"zero_shot must be 3 rows of {len(spec.channels)} numbers, one for each channel")


def _in_words(error: Exception) -> str:
    if isinstance(error, InvalidDocument):
        return str(error)
    return f"no key {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"

"""Read and write `bundle.json`, which holds a digest of its own content.

The digest guards against damage and mistakes in an editor. It is not a signature: it says nothing about who made the
bundle or whether to trust it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, JsonValue
from safetensors.torch import save
from torch import Tensor

from simmat.bundle.files import JSON_NAME, SIZE_LIMITS, WEIGHTS_NAME, read_weights
from simmat.bundle.places import bundle_folder
from simmat.calibration import Calibration
from simmat.config import SensorName
from simmat.documents import StrictModel, validate
from simmat.errors import BundleError
from simmat.io.files import atomic_folder, atomic_write_bytes, atomic_write_json, recover_folder
from simmat.io.reading import missing, parse_json, read_bytes
from simmat.io.weights import sha256_of
from simmat.model_spec import ModelSpec
from simmat.types import Window, is_finite_number
from simmat.version import __version__

_T = TypeVar("_T")

FORMAT, SEVERAL = 1, 2
"""Of a bundle of one sensor, and of several. Raised with every change that an older reader would misread."""
_DIGEST = "sha256"
"""Field of the json's own digest."""


_DIGEST_BYTES = 6
"""Of a million images and as many others, about one in 280 such pairs of sets has two with the same digest."""
_EVERYWHERE = Window(0, 0, 2**31 - 1, 2**31 - 1)
"""A whole image in a record with windows."""
_MAX_RECORD = 12 << 20
"""Largest record in characters: 1.5 million images, or 400,000 windows."""


class ImageDigests(StrictModel):
    """The images that a bundle was trained or validated on, by their content.

    Attributes:
        digests: base64 of (N, 6) bytes, the first of the sha256 of the reference file of each image.
        windows: base64 of (N, 4) little-endian int32, the y0, x0, y1, x1 of the used part; "" for whole images.
    """

    digests: str
    windows: str = ""

    @classmethod
    def of(cls, digests: npt.NDArray[np.uint8], windows: Sequence[Window | None]) -> ImageDigests | None:
        """Make the record of N images from (N, 32) sha256 and their windows; None if it would be too large."""
        rows = zip((digest.tobytes() for digest in digests[:, :_DIGEST_BYTES]), windows, strict=True)
        return cls._of_rows(set(rows))

    @classmethod
    def _of_rows(cls, rows: set[tuple[bytes, Window | None]]) -> ImageDigests | None:
        if any(window is not None for _, window in rows):
            rows = {(digest, window or _EVERYWHERE) for digest, window in rows}
        ordered = sorted(rows, key=repr)
        parts = np.array([window for _, window in ordered if window is not None], "<i4")
        found = cls(digests=_base64(b"".join(digest for digest, _ in ordered)), windows=_base64(parts.tobytes()))
        return found if len(found.digests) + len(found.windows) <= _MAX_RECORD else None

    def joined(self, other: ImageDigests) -> ImageDigests | None:
        """Return the record of the images of both; None if it would be too large."""
        return self._of_rows({*self._rows(), *other._rows()})

    def _rows(self) -> Iterator[tuple[bytes, Window | None]]:
        own = np.frombuffer(base64.b64decode(self.digests), np.uint8).reshape(-1, _DIGEST_BYTES)
        parts = np.frombuffer(base64.b64decode(self.windows), "<i4").reshape(-1, 4).tolist()
        return ((digest.tobytes(), Window(*parts[row]) if parts else None) for row, digest in enumerate(own))

    def has(self, digests: npt.NDArray[np.uint8], windows: Sequence[Window | None]) -> list[bool]:
        """Return of each of N images, by their (N, 32) sha256, whether a pixel of it was used."""
        used: dict[bytes, list[Window | None]] = {}
        for digest, part in self._rows():
            used.setdefault(digest, []).append(part)
        found = (used.get(digest.tobytes(), ()) for digest in digests[:, :_DIGEST_BYTES])
        return [
            any(part is None or window is None or window.intersection(part) for part in parts)
            for parts, window in zip(found, windows, strict=True)
        ]

    def problems(self) -> Iterator[str]:
        """Yield contradictions."""
        try:
            count, odd = divmod(len(base64.b64decode(self.digests, validate=True)), _DIGEST_BYTES)
            windows = len(base64.b64decode(self.windows, validate=True))
        except ValueError as error:
            yield f"its digests are not base64: {error}"
        else:
            if odd or windows not in (0, 16 * count):
                yield f"digests must be {_DIGEST_BYTES} bytes each, and windows 16 bytes for each, or none"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


class BundleSpec(ModelSpec):
    """The content of `bundle.json`, or what it says of one of several sensors.

    Attributes:
        metrics: scores on the validation split, with their step and protocol.
        versions: versions of the software that wrote it.
        exported: name of the `ModelFormat` of the files beside it, in place of weights; None for weights.
        trained_on: the images of its training; None if it does not say.
        validated_on: the images by which its step was chosen; None if it does not say.
        calibration: what its scores are worth; None if that was not measured.
    """

    format: Literal[1]
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    weights_sha256: str
    versions: dict[str, str]
    exported: str | None = None
    trained_on: ImageDigests | None = None
    validated_on: ImageDigests | None = None
    calibration: Calibration | None = None

    def problems(self) -> Iterator[str]:
        """Yield contradictions, and a score that is not a number."""
        yield from super().problems()
        for name, images in (("trained_on", self.trained_on), ("validated_on", self.validated_on)):
            yield from (f"{name}: {problem}" for problem in (images.problems() if images else ()))
        yield from (f"calibration.{problem}" for problem in (self.calibration.problems() if self.calibration else ()))
        scores = self.metrics.get("val") or {}
        score = scores.get("miou_object") if isinstance(scores, dict) else scores
        if score is not None and not is_finite_number(score):
            yield f"metrics.val.miou_object must be a number, got {score!r}"


class _Sensors(StrictModel):
    sensors: Annotated[dict[SensorName, dict[str, JsonValue]], Field(min_length=1)]


def read_bundle_spec(path: Path) -> BundleSpec:
    """Read the spec of a bundle, a folder or a zip, without its weights; raise BundleError if that fails."""
    return single_sensor(read_bundle_specs(path), path)


def read_bundle_specs(path: Path) -> dict[str, BundleSpec]:
    """Read name -> spec of each sensor that a path stands for, see `read_specs`; raises as `read_bundle_spec`."""
    with bundle_folder(path, (JSON_NAME,)) as (folder, sensor):
        return read_specs(folder, sensor)


def single_sensor(sensors: Mapping[str, _T], path: Path) -> _T:
    """Return what a bundle has for its sensor; BundleError if there are several, and none was named."""
    if len(sensors) > 1:
        raise BundleError(
            f"{path} holds several sensors; name one behind it: {', '.join(str(path / name) for name in sensors)}"
        )
    return next(iter(sensors.values()))


def check_bundle(folder: Path) -> None:
    """Raise BundleError if a bundle's folder is missing, damaged or of a newer format; builds no network."""
    read_weights(folder, next(iter(read_specs(folder).values())).weights_sha256)


def read_specs(folder: Path, sensor: str = "") -> dict[str, BundleSpec]:
    """Read name -> spec of each sensor in the folder of a bundle, or of one; raises as `read_bundle_spec`.

    The sensor of a bundle of one has the name of its modality.
    """
    if (folder / "bundle").is_dir() and not (folder / JSON_NAME).exists():
        raise BundleError(f"{folder} is a run folder, not a bundle; use {folder / 'bundle'}")
    recover_folder(folder)
    file = folder / JSON_NAME
    if not file.exists():
        if runs := [str(found.parent) for found in sorted(folder.glob("*/bundle"))]:
            raise BundleError(f"{folder} is no bundle, but has runs, each with one; use one of {', '.join(runs)}")
        raise BundleError(f"{missing(folder, 'bundle')}; a bundle is a folder with {JSON_NAME} and {WEIGHTS_NAME}")
    content = read_bytes(file, "bundle", limit=SIZE_LIMITS[JSON_NAME], error=BundleError)
    try:
        document = parse_json(content)
        if not isinstance(document, dict):
            raise ValueError("it must be a table")
        if (found := document.get("format")) not in (FORMAT, SEVERAL):
            raise BundleError(
                f"{folder} has bundle format {found}, this is simmat {__version__} which reads format {FORMAT} and "
                f"{SEVERAL}; upgrade with `pip install --upgrade simmat`"
            )
        plain = {key: value for key, value in document.items() if key != _DIGEST}
        if document.get(_DIGEST) != _digest(plain):
            raise ValueError(f"a value in it was changed: the {_DIGEST} of its content is not the one in it")
        if found == FORMAT:
            spec = validate(BundleSpec, plain)
            specs = {spec.modality: spec}
        else:
            sensors = validate(_Sensors, {"sensors": plain.pop("sensors", None)}).sensors
            shared = {**plain, "format": FORMAT}
            specs = {name: validate(BundleSpec, {**shared, **own}) for name, own in sensors.items()}
    except ValueError as error:
        raise BundleError(f"{file} is damaged ({error}); copy or train the bundle again") from error
    if sensor and sensor not in specs:
        raise BundleError(f"{folder} holds no sensor {sensor!r}, but {', '.join(specs)}")
    return {sensor: specs[sensor]} if sensor else specs


def write_bundle(
    path: Path,
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    metrics: Mapping[str, Any] | None = None,
    **records: Any,
) -> None:
    """Write a bundle of `trained_tensors` and what `bundle_spec` takes; writes as `write_sensors`."""
    write_sensors(path, {"": (bundle_spec(spec, metrics, **records), tensors)})


def bundle_spec(spec: ModelSpec, metrics: Mapping[str, Any] | None = None, **records: Any) -> BundleSpec:
    """Return what a bundle that is not written yet says of a network; `records` are fields of `BundleSpec`."""
    fields = {name: getattr(spec, name) for name in ModelSpec.model_fields}
    plain = json.loads(json.dumps(dict(metrics or {})))
    return BundleSpec(format=1, **fields, metrics=plain, weights_sha256="", versions={}, **records)


def write_sensors(path: Path, sensors: Mapping[str, tuple[BundleSpec, Mapping[str, Tensor]]]) -> None:
    """Write one bundle of sensors: name -> spec and `trained_tensors`; the name "" is that of the only one.

    What the specs of several have in common is written once, as are the tensors of their foundation model. After a
    crash there is the old bundle or the new one, whole. No time and no path goes in, so equal runs give equal files.
    """
    written = set(BundleSpec.model_fields) - {"format", "weights_sha256", "versions", "exported"}
    documents = {name: spec.model_dump(mode="json", include=written) for name, (spec, _) in sensors.items()}
    number, document = FORMAT, documents.get("", {})
    if not document:
        first, number = next(iter(documents.values())), SEVERAL
        document = {key: value for key, value in first.items() if all(one[key] == value for one in documents.values())}
        own = {name: {key: one[key] for key in one if key not in document} for name, one in documents.items()}
        document["sensors"] = own
    tensors = {
        f"{name}/{key}" if name and not key.startswith("foundation.") else key: tensor
        for name, (_, found) in sensors.items()
        for key, tensor in found.items()
    }
    with atomic_folder(path) as folder:
        atomic_write_bytes(folder / WEIGHTS_NAME, save(tensors, metadata={"format": str(number)}))
        document = {
            "format": number,
            **document,
            "weights_sha256": sha256_of(folder / WEIGHTS_NAME),
            "versions": {"simmat": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        atomic_write_json(folder / JSON_NAME, with_checksum(document))


def with_checksum(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's json with its digest as the last field; a digest that it has already is replaced."""
    plain = {key: value for key, value in json.loads(json.dumps(document)).items() if key != _DIGEST}
    return {**plain, _DIGEST: _digest(plain)}


def _digest(plain: Mapping[str, Any]) -> str:
    """Return the sha256 of json values in their canonical form: keys sorted, ASCII, no spaces."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()

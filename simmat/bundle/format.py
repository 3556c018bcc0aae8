"""The file of a bundle: a safetensors file with the spec as json in its header.

The json has a digest of the whole content. It guards against damage and mistakes in an editor. It is not a signature:
it says nothing about who made the bundle or whether to trust it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, JsonValue
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from simmat.bundle.image_digests import ImageDigests
from simmat.bundle.packages import Package
from simmat.calibration import Calibration
from simmat.config import SensorName
from simmat.documents import FromLists, StrictModel, validate
from simmat.errors import BundleError
from simmat.io.files import atomic_write_bytes
from simmat.io.reading import parse_json, require_file
from simmat.model_spec import ModelSpec
from simmat.nn.tensor_files import check_dimensions, first_line
from simmat.sensors.options import is_sensor_file, modality_parts
from simmat.types import is_finite_number
from simmat.version import __version__

FILE_NAME = "bundle.safetensors"
"""Name of the bundle in the folder of a run."""
SUFFIX = ".safetensors"
FORMAT = 3
"""Raised with every change that an older reader would misread; 1 and 2 were folders."""
METADATA_KEY = "simmat_bundle"
"""Entry of the header that holds the json."""
MAX_JSON_BYTES = 16 << 20
_DIGEST = "sha256"
"""Field of the json that holds the digest of everything else."""

Tensors = dict[str, Tensor]
Sensors = dict[str, tuple["BundleSpec", Tensors]]
"""Name of a sensor -> what a bundle says of it, and its tensors."""


class BundleSpec(ModelSpec):
    """What a bundle states about itself, or about one of its sensors.

    Attributes:
        metrics: scores on the validation split, with their step and protocol.
        versions: versions of the software that wrote it.
        packages: the packages that brought its parts when it was trained.
        licence: of the bundle, as the Hugging Face Hub names it; "" if it is not stated.
        exported: name of the `ModelFormat` of the files beside it, in place of weights; None for weights.
        trained_on: the images of its training; None if it does not state them.
        validated_on: the images that chose its step; None if it does not state them.
        calibration: the calibration of its scores; None if it was not measured.
        sha256: the digest of the content of its file; "" if it is not written yet.
    """

    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    packages: FromLists[tuple[Package, ...]] = ()
    licence: str = ""
    exported: str | None = None
    trained_on: ImageDigests | None = None
    validated_on: ImageDigests | None = None
    calibration: Calibration | None = None
    sha256: str = ""

    def problems(self) -> Iterator[str]:
        """Yield contradictions, a sensor that is a path, and a score that is not a number."""
        yield from super().problems()
        for part in modality_parts(self.modality):
            if is_sensor_file(part):  # a stranger's file must not choose which file is read here
                yield f"modality must be the names of sensors, got the path {part!r}"
        for name, images in (("trained_on", self.trained_on), ("validated_on", self.validated_on)):
            if images is not None:
                for problem in images.problems():
                    yield f"{name}: {problem}"
        if self.calibration is not None:
            for problem in self.calibration.problems():
                yield f"calibration.{problem}"
        scores = self.metrics.get("val")
        score = scores.get("miou_object") if isinstance(scores, dict) else scores
        if score is not None and not is_finite_number(score):
            yield f"metrics.val.miou_object must be a number, got {score!r}"


class _SensorTable(StrictModel):
    sensors: Annotated[dict[SensorName, dict[str, JsonValue]], Field(min_length=1)]


def bundle_spec(spec: ModelSpec, metrics: Mapping[str, Any] | None = None, **records: Any) -> BundleSpec:
    """Return the spec of a bundle for a network, before it is written; `records` are fields of `BundleSpec`."""
    fields = {name: getattr(spec, name) for name in ModelSpec.model_fields}
    plain = json.loads(json.dumps(dict(metrics or {})))
    return BundleSpec(**fields, metrics=plain, **records)


def write_bundle(
    file: Path,
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    metrics: Mapping[str, Any] | None = None,
    **records: Any,
) -> None:
    """Write a bundle of `trained_tensors` and what `bundle_spec` takes; writes as `write_sensors`."""
    write_sensors(file, {"": (bundle_spec(spec, metrics, **records), tensors)})


def write_sensors(file: Path, sensors: Mapping[str, tuple[BundleSpec, Mapping[str, Tensor]]]) -> None:
    """Write a bundle of sensors: name -> spec and `trained_tensors`; the name "" is that of the only one.

    What the specs of several sensors have in common is written once, and so are the tensors of their foundation model.
    After a crash the old bundle is there, or the new one. It holds no time and no path, so equal runs give equal files.

    Raises:
        OutputError: the file cannot be written.
    """
    document = {"format": FORMAT, **_joined({name: _document(spec) for name, (spec, _) in sensors.items()})}
    tensors = {}
    for sensor, (_, own) in sensors.items():
        for name, tensor in own.items():
            is_own = sensor and not name.startswith("foundation.")
            stored = f"{sensor}/{name}" if is_own else name
            tensors[stored] = tensor
    atomic_write_bytes(file, bundle_bytes(document, tensors))


def bundle_bytes(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a bundle's file; a digest that its json has already is replaced."""
    plain = json.loads(json.dumps(document))
    plain.pop(_DIGEST, None)
    plain[_DIGEST] = _digest(plain, tensors)
    return save(dict(tensors), metadata={METADATA_KEY: json.dumps(plain)})


def _document(spec: BundleSpec) -> dict[str, Any]:
    """Return the json of a sensor, without the digest."""
    document = spec.model_dump(mode="json", exclude={_DIGEST})
    own = {"simmat": __version__, "torch": torch.__version__, "python": platform.python_version()}
    document["versions"] = spec.versions or own
    return document


def _joined(documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return one document of several sensors, with what they have in common outside of `sensors`."""
    if "" in documents:
        return documents[""]
    first = next(iter(documents.values()))
    shared = {}
    for key, value in first.items():
        if all(document[key] == value for document in documents.values()):
            shared[key] = value
    sensors = {}
    for name, document in documents.items():
        sensors[name] = {key: value for key, value in document.items() if key not in shared}
    return {**shared, "sensors": sensors}


def read_file(file: Path) -> tuple[dict[str, Any], Tensors]:
    """Read and check json and tensors of a bundle's file.

    Raises:
        BundleError: it is missing, damaged, of another format, or no bundle.
    """
    require_file(file, "bundle", error=BundleError)
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA_KEY)
            tensors = {}
            if text is not None:  # the weights of another model may be large
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        check_dimensions(tensors)
    except Exception as error:  # the kinds differ between versions of safetensors
        if file.suffix.lower() != SUFFIX:
            raise BundleError(
                f"{file} is no bundle, which is a {SUFFIX} file; give a run, or its {FILE_NAME}"
            ) from error
        raise damaged(file, first_line(error)) from error
    if text is None:
        raise BundleError(f"{file} is no bundle: its header has no {METADATA_KEY}; give a run, or its {FILE_NAME}")
    try:
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(f"its json has {len(text)} characters, at most {MAX_JSON_BYTES} are allowed")
        document = parse_json(text)
        if not isinstance(document, dict):
            raise ValueError("its json must be a table")
    except ValueError as error:
        raise damaged(file, str(error)) from error
    number = document.pop("format", None)
    if number != FORMAT:
        raise BundleError(
            f"{file} has bundle format {number}, this is simmat {__version__} which reads format {FORMAT}; upgrade "
            "with `pip install --upgrade simmat`"
        )
    stated = document.pop(_DIGEST, None)
    digest = _digest({"format": FORMAT, **document}, tensors)
    if stated != digest:
        raise damaged(file, f"something in it was changed: the {_DIGEST} of its content is not the one in it")
    check_finite(file, tensors)
    return {**document, _DIGEST: digest}, tensors


def sensors_of(file: Path, document: Mapping[str, Any], tensors: Tensors) -> Sensors:
    """Return the sensors of a bundle from its json and tensors; that of a bundle of one has the name of its modality.

    Raises:
        BundleError: the json is not that of a bundle.
    """
    shared = {key: value for key, value in document.items() if key != "sensors"}
    try:
        if "sensors" not in document:
            spec = validate(BundleSpec, shared)
            return {spec.modality: (spec, tensors)}
        table = validate(_SensorTable, {"sensors": document["sensors"]}).sensors
        found = {}
        for name, own in table.items():
            found[name] = (validate(BundleSpec, {**shared, **own}), _tensors_of(name, tensors))
        return found
    except ValueError as error:
        raise damaged(file, str(error)) from error


def _tensors_of(sensor: str, tensors: Tensors) -> Tensors:
    """Return what a bundle of several sensors has for one: its own tensors, "SENSOR/mat.…", and the shared ones."""
    own = f"{sensor}/"
    found = {}
    for name, tensor in tensors.items():
        is_shared = "/" not in name.partition(".")[0]
        if is_shared or name.startswith(own):
            found[name.removeprefix(own)] = tensor
    return found


def check_finite(file: Path, tensors: Tensors) -> None:
    """Raise BundleError for a tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        values = tensor.float() if tensor.element_size() == 1 else tensor  # 8 bits have no isfinite
        if not torch.isfinite(values).all():
            raise BundleError(
                f"{file} holds NaN or infinity in the tensor {name!r}, so it cannot give a mask; get the bundle again "
                "from who trained it, or train it again"
            )


def damaged(file: Path, why: str) -> BundleError:
    """Return the error for a damaged bundle."""
    return BundleError(f"{file} is damaged ({why}); copy or train the bundle again")


def _digest(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of json values in their canonical form (keys sorted, ASCII, no spaces), and of all tensors."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode("ascii"))
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()

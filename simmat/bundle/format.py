"""The file of a bundle, written and read: a safetensors file of tensors, with the spec as json in its header.

The json has a digest of the whole content. It guards against damage and mistakes in an editor. It is not a signature:
it says nothing about who made the bundle or whether to trust it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, JsonValue
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from simmat.calibration import Calibration
from simmat.config import SensorName
from simmat.documents import FromLists, StrictModel, validate
from simmat.errors import BundleError
from simmat.io.files import atomic_write_bytes
from simmat.io.paths import require_file
from simmat.io.reading import parse_json
from simmat.model import SimMAT
from simmat.model_spec import ModelSpec
from simmat.nn.tensor_files import check_dimensions, first_line
from simmat.nn.tuners import trainable_state
from simmat.plugins.hooks import PROJECT
from simmat.plugins.kinds import Kind
from simmat.plugins.registry import Registry
from simmat.sensors.contract import InputContract
from simmat.sensors.options import is_sensor_file, modality_parts
from simmat.types import Window, is_finite_number
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

_DIGEST_BYTES = 6
"""Of a million images and as many others, about one in 280 such pairs of sets has two with the same digest."""
_WINDOW_BYTES = 16
_EVERYWHERE = Window(0, 0, 2**31 - 1, 2**31 - 1)
"""A whole image in a record with windows."""
_MAX_RECORD = 12 << 20
"""Largest record in characters: 1.5 million images, or 400,000 windows."""


class Package(StrictModel):
    """The package that brought a part of a network when it was trained.

    Attributes:
        kind: kind of the part, such as "modality" or "tuner".
        name: name of the part.
        distribution: name of the package, as pip takes it.
        version: its version.
    """

    kind: str
    name: str
    distribution: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}$")]


class ImageDigests(StrictModel):
    """The images that a bundle was trained or validated on, by their content.

    Attributes:
        digests: base64 of (N, 6) bytes, the first of the sha256 of the reference file of each image.
        windows: base64 of (N, 4) little-endian int32, the y0, x0, y1, x1 of the used part; "" for whole images.
    """

    digests: str
    windows: str = ""

    @classmethod
    def of(
        cls, digests: npt.NDArray[np.uint8], windows: Sequence[Window | None]
    ) -> ImageDigests | None:
        """Make the record of N images from (N, 32) sha256 and their windows; None if it would be too large."""
        rows = set()
        for digest, window in zip(digests[:, :_DIGEST_BYTES], windows, strict=True):
            rows.add((digest.tobytes(), window))
        return cls._of_rows(rows)

    @classmethod
    def _of_rows(cls, rows: set[tuple[bytes, Window | None]]) -> ImageDigests | None:
        if any(window is not None for _, window in rows):
            rows = {(digest, window or _EVERYWHERE) for digest, window in rows}
        ordered = sorted(rows, key=repr)
        digests = b"".join(digest for digest, _ in ordered)
        windows = np.array(
            [window for _, window in ordered if window is not None], "<i4"
        )
        found = cls(digests=_base64(digests), windows=_base64(windows.tobytes()))
        if len(found.digests) + len(found.windows) > _MAX_RECORD:
            return None
        return found

    def joined(self, other: ImageDigests) -> ImageDigests | None:
        """Return the record of the images of both; None if it would be too large."""
        return self._of_rows({*self.rows(), *other.rows()})

    def rows(self) -> Iterator[tuple[bytes, Window | None]]:
        """Yield the digest of each image, and the window of it that was used; None if all of it was."""
        digests = np.frombuffer(base64.b64decode(self.digests), np.uint8).reshape(
            -1, _DIGEST_BYTES
        )
        windows = (
            np.frombuffer(base64.b64decode(self.windows), "<i4").reshape(-1, 4).tolist()
        )
        for row, digest in enumerate(digests):
            window = Window(*windows[row]) if windows else None
            yield digest.tobytes(), window

    def has(
        self, digests: npt.NDArray[np.uint8], windows: Sequence[Window | None]
    ) -> list[bool]:
        """Return of each of N images, by their (N, 32) sha256, whether a pixel of it was used."""
        used: dict[bytes, list[Window | None]] = {}
        for own_digest, part in self.rows():
            used.setdefault(own_digest, []).append(part)
        answers = []
        for digest, window in zip(digests[:, :_DIGEST_BYTES], windows, strict=True):
            parts = used.get(digest.tobytes(), [])
            answers.append(any(_overlap(part, window) for part in parts))
        return answers

    def problems(self) -> Iterator[str]:
        """Yield contradictions."""
        try:
            digests = len(base64.b64decode(self.digests, validate=True))
            windows = len(base64.b64decode(self.windows, validate=True))
        except ValueError as error:
            yield f"its digests are not base64: {error}"
            return
        count, rest = divmod(digests, _DIGEST_BYTES)
        if rest or windows not in (0, _WINDOW_BYTES * count):
            yield f"digests must be {_DIGEST_BYTES} bytes each, and windows {_WINDOW_BYTES} bytes for each, or none"


def _overlap(part: Window | None, window: Window | None) -> bool:
    """Return whether two parts of an image share a pixel; None is the whole image."""
    return part is None or window is None or bool(window.intersection(part))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


class BundleSpec(ModelSpec):
    """What a bundle states about itself, or about one of its sensors.

    Attributes:
        metrics: scores on the validation split, with their step and protocol.
        versions: versions of the software that wrote it.
        packages: the packages that brought its parts when it was trained.
        licence: of the bundle, as the Hugging Face Hub names it; "" if it is not stated.
        exported: name of the model format of the files beside it, in place of weights; None for weights.
        trained_on: the images of its training; None if it does not state them.
        validated_on: the images that chose its step; None if it does not state them.
        calibration: the calibration of its scores; None if it was not measured.
        inputs: what the values of its training images are like; None if it does not state them.
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
    inputs: InputContract | None = None
    sha256: str = ""

    def problems(self) -> Iterator[str]:
        """Yield contradictions, a sensor that is a path, and a score that is not a number."""
        yield from super().problems()
        for part in modality_parts(self.modality):
            # a stranger's file must not choose which file is read here
            if is_sensor_file(part):
                yield f"modality must be the names of sensors, got the path {part!r}"
        for name, images in (
            ("trained_on", self.trained_on),
            ("validated_on", self.validated_on),
        ):
            if images is not None:
                for problem in images.problems():
                    yield f"{name}: {problem}"
        if self.calibration is not None:
            for problem in self.calibration.problems():
                yield f"calibration.{problem}"
        if self.inputs is not None:
            for problem in self.inputs.problems():
                yield f"inputs: {problem}"
        scores = self.metrics.get("val")
        score = scores.get("miou_object") if isinstance(scores, dict) else scores
        if score is not None and not is_finite_number(score):
            yield f"metrics.val.miou_object must be a number, got {score!r}"


class _SensorTable(StrictModel):
    sensors: Annotated[dict[SensorName, dict[str, JsonValue]], Field(min_length=1)]


def bundle_spec(
    spec: ModelSpec, metrics: Mapping[str, Any] | None = None, **records: Any
) -> BundleSpec:
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


def write_sensors(
    file: Path, sensors: Mapping[str, tuple[BundleSpec, Mapping[str, Tensor]]]
) -> None:
    """Write a bundle of sensors: name -> spec and `trained_tensors`; the name "" is that of the only one.

    What the specs of several sensors have in common is written once, and so are the tensors of their foundation model.
    After a crash the old bundle is there, or the new one. It holds no time and no path, so equal runs give equal files.

    Raises:
        OutputError: the file cannot be written.
    """
    document = {
        "format": FORMAT,
        **_joined({name: _document(spec) for name, (spec, _) in sensors.items()}),
    }
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
    plain[_DIGEST] = content_digest(plain, tensors)
    return save(dict(tensors), metadata={METADATA_KEY: json.dumps(plain)})


def _document(spec: BundleSpec) -> dict[str, Any]:
    """Return the json of a sensor, without the digest."""
    document = spec.model_dump(mode="json", exclude={_DIGEST})
    own = {
        "simmat": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
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
        sensors[name] = {
            key: value for key, value in document.items() if key not in shared
        }
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
                f"{file} is not a bundle, which is a {SUFFIX} file; give a run, or its {FILE_NAME}"
            ) from error
        raise damaged(file, first_line(error)) from error
    if text is None:
        raise BundleError(
            f"{file} is not a bundle: its header has no {METADATA_KEY}; give a run, or its {FILE_NAME}"
        )
    try:
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(
                f"its json has {len(text)} characters, at most {MAX_JSON_BYTES} are allowed"
            )
        document = parse_json(text)
        if not isinstance(document, dict):
            raise ValueError("its json must be a table")
    except ValueError as error:
        raise damaged(file, str(error)) from error
    number = document.pop("format", None)
    if number != FORMAT:
        raise BundleError(
            f"{file} has bundle format {number}, but simmat {__version__} reads format {FORMAT}; upgrade "
            "with `pip install --upgrade simmat`"
        )
    stated = document.pop(_DIGEST, None)
    digest = content_digest({"format": FORMAT, **document}, tensors)
    if stated != digest:
        raise damaged(
            file,
            f"its content was changed: the {_DIGEST} is not the one stored in it",
        )
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
            found[name] = (
                validate(BundleSpec, {**shared, **own}),
                _tensors_of(name, tensors),
            )
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
        # 8 bits have no isfinite
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if not torch.isfinite(values).all():
            raise BundleError(
                f"{file} holds NaN or infinity in the tensor {name!r}, so it cannot predict a mask; get the "
                "bundle again from its author, or train it again"
            )


def damaged(file: Path, why: str) -> BundleError:
    """Return the error for a damaged bundle."""
    return BundleError(f"{file} is damaged ({why}); copy or train the bundle again")


def content_digest(document: object, tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of json values in their canonical form (keys sorted, ASCII, no spaces), and of all tensors."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode("ascii"))
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(
            tensor.detach()
            .cpu()
            .contiguous()
            .reshape(-1)
            .view(torch.uint8)
            .numpy()
            .data
        )
    return found.hexdigest()


def packages_of(spec: ModelSpec, registry: Registry) -> tuple[Package, ...]:
    """Return the packages of a network's parts; none for a part of SimMAT, of the bundle itself or of a notebook.

    Raises:
        UnknownNameError: a part is not installed.
    """
    own = {definition.name for definition in spec.sensor_definitions}
    sensors = dict.fromkeys(modality_parts(spec.modality))
    parts: list[tuple[Kind, str]] = [
        ("modality", name) for name in sensors if name not in own
    ]
    parts += [
        ("foundation model", spec.foundation),
        ("transfer layer", spec.mat),
        ("tuner", spec.tune),
    ]
    reports = {report.owner: report for report in registry.reports if report.version}
    found = []
    for kind, name in parts:
        report = reports.get(registry.owner(kind, name))
        if report is None or report.distribution == PROJECT:
            continue
        found.append(
            Package(
                kind=kind,
                name=name,
                distribution=report.distribution,
                version=report.version,
            )
        )
    return tuple(found)


def trained_tensors(model: SimMAT) -> dict[str, Tensor]:
    """Return the tensors a bundle holds: the transfer layer and what the tuner changed, on the CPU."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in sorted(_own_tensors(model).items())
    }


def _own_tensors(model: SimMAT) -> dict[str, Tensor]:
    tensors = {f"mat.{name}": tensor for name, tensor in model.mat.state_dict().items()}
    tensors |= {
        f"foundation.{name}": tensor
        for name, tensor in trainable_state(model.foundation).items()
    }
    if model.dense is not None:
        tensors |= {
            f"dense.{name}": tensor for name, tensor in model.dense.state_dict().items()
        }
    return tensors


def check_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise BundleError if tensors of a bundle are not those of a network, which may be on the meta device."""
    expected = {name: _kind(tensor) for name, tensor in _own_tensors(model).items()}
    given = {name: _kind(tensor) for name, tensor in tensors.items()}
    wrong = sorted(
        name
        for name in expected.keys() | given.keys()
        if expected.get(name) != given.get(name)
    )
    if wrong:
        first = wrong[0]
        raise BundleError(
            f"{origin} does not fit the network: {len(wrong)} tensors differ, the first is {first!r}: "
            f"needed {expected.get(first, 'none')}, got {given.get(first, 'none')}"
        )


def load_tensors(model: SimMAT, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put a bundle's tensors into a network of the same spec; raise BundleError if they do not fit."""
    check_tensors(model, tensors, origin)
    model.load_state_dict(dict(tensors), strict=False)


def _kind(tensor: Tensor) -> str:
    """Return shape and dtype for messages: "(3, 64) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"

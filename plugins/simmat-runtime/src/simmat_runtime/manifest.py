"""The manifest of an exported model: inputs and outputs of its files, their sha256, and that of the manifest itself.

The digests guard against damage and mistakes in an editor. They are not a signature.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from simmat_runtime.letterbox import FloatArray

FORMAT = 1
"""Format number, increased when an older reader would misread a change."""
NAME = "manifest.json"
ENCODER, DECODER, DENSE, MASKS = (
    "encoder.onnx",
    "decoder.onnx",
    "dense.onnx",
    "masks.onnx",
)
MAX_BYTES = 4 * 2**20
"""Of a manifest; one of 1000 classes has 40 KB."""
_MAX_SIZE = 2**14
"""Pixels of a side of the network's input."""
_MIN_WINDOW = 8
_MAX_CHANNELS = 4096
_MAX_CLASSES = 2**16
_MAX_CLASS = 2**32 - 2
"""A class map has at most 32 bits, and its largest value stands for missing pixels."""
_DIGEST = "sha256"
EACH = "each"
"""In place of a matrix: each image has its own."""


Numbers = tuple[float, ...]


class ModelError(ValueError):
    """The folder has no complete exported model, or the model cannot do what is requested."""


@dataclass(frozen=True)
class Channel:
    """One plane of the sensor.

    Attributes:
        name: unique, lower case.
        unit: unit of the values.
        quantity: measured quantity.
        valid_range: smallest and largest valid value; None without bounds.
    """

    name: str
    unit: str
    quantity: str
    valid_range: tuple[float, float] | None


@dataclass(frozen=True)
class Dense:
    """The classes of the dense head.

    Attributes:
        background: True if index 0 of the class map is background.
        classes: label value of each class of objects; None for objects without a class.
        temperature: by which the class probabilities of an object are calibrated.
    """

    background: bool
    classes: tuple[int | None, ...]
    temperature: float = 1.0

    def calibrated(self, probabilities: FloatArray) -> FloatArray:
        """Return p^(1/T) of the probabilities (N, C) of classes of objects, divided by their sum."""
        inside = np.clip(probabilities, 1e-9, 1).astype(np.float64)
        powers = (inside / inside.max(-1, keepdims=True)) ** (1 / self.temperature)
        return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


@dataclass(frozen=True)
class Sensor:
    """One of several sensors whose planes make an image.

    Attributes:
        name: its name.
        averaged: for each of its channels, whether values of neighbours may be averaged.
        matrix: (3, 3), from homogeneous xy pixels of the first sensor's image to those of this one's; the centre of the
            top-left pixel is 0, 0. None if both are on one pixel grid, or each image has its own.
        each: whether each image has its own matrix.
        size: (width, height) of the images that the matrix is for; None for any.
    """

    name: str
    averaged: tuple[bool, ...]
    matrix: tuple[Numbers, ...] | None
    size: tuple[int, int] | None
    each: bool = False


@dataclass(frozen=True)
class Manifest:
    """The description of an exported model.

    Attributes:
        modality: name of the sensor.
        channels: C planes of the image, in order.
        image_size: S, the side of the network's input in pixels.
        aspect: "pad" scales the longer side to S and pads; "stretch" scales both sides to S.
        largest: longest side of an image in pixels that is looked at as a whole; larger ones are cut into windows.
        window: side of these windows in pixels.
        mask_size: (h, w) of `Prediction.low_res_logits`.
        dense: classes of the dense head; None without one.
        class_names: label value -> name.
        calibration: kind of score -> (scores of the network, what they are worth), both rising.
        sensors: those whose images may be given separately, each with some of the channels; empty if there is one.
        files: name -> sha256.
        document: the whole json document.
    """

    modality: str
    channels: tuple[Channel, ...]
    image_size: int
    aspect: str
    largest: int
    window: int
    mask_size: tuple[int, int]
    dense: Dense | None
    class_names: Mapping[int, str]
    calibration: Mapping[str, tuple[Numbers, Numbers]]
    sensors: tuple[Sensor, ...]
    files: Mapping[str, str]
    document: Mapping[str, Any]

    def calibrated(self, kind: str, score: float) -> float:
        """Return the mean IoU that the score of a "click", "box" or "object" is worth; itself if this is unknown."""
        return (
            float(np.interp(score, *self.calibration[kind]))
            if kind in self.calibration
            else score
        )


def read_manifest(folder: Path | str) -> Manifest:
    """Read the manifest of an exported model.

    Raises:
        ModelError: the manifest is missing, damaged, or of a newer format.
    """
    file = Path(folder) / NAME
    try:
        with open_regular(file) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES / 2**20:g} MiB")
        document = json.loads(content, parse_float=_finite, parse_constant=_not_finite)
        checked = with_checksum(document) if isinstance(document, dict) else {}
    except FileNotFoundError:
        raise ModelError(
            f"no exported model at {folder}: {NAME} is missing; write one with `simmat export BUNDLE --out {folder}`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{file} cannot be read ({error}); export the model again"
        ) from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ModelError(
            f"{file} has format {found!r:.80}, but this simmat-runtime reads format {FORMAT}; upgrade it, or "
            "export again"
        )
    try:
        if document.get(_DIGEST) != checked[_DIGEST]:
            raise ValueError(
                f"a value in it was changed: the {_DIGEST} of its content is not the one stored in it"
            )
        return _parsed(document)
    except KeyError as error:
        raise ModelError(
            f"{file} is damaged ({error} is missing); export the model again"
        ) from error
    except ValueError as error:
        raise ModelError(
            f"{file} is damaged ({error}); export the model again"
        ) from error


def with_checksum(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest's json values with the sha256 of their canonical form: keys sorted, ASCII, no spaces."""
    plain = {key: value for key, value in document.items() if key != _DIGEST}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return {**plain, _DIGEST: hashlib.sha256(text.encode("ascii")).hexdigest()}


def open_regular(file: Path) -> BufferedReader:
    """Open a regular file; raise ValueError for a pipe or a device, which would be waited for or never end."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is a pipe or device, not a regular file")
    return file.open("rb")


def check_files(folder: Path | str, manifest: Manifest) -> None:
    """Compare every file with its sha256.

    Raises:
        ModelError: a file is missing or differs from the exported one.
    """
    for name, digest in manifest.files.items():
        file = Path(folder) / name
        try:
            with open_regular(file) as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{file} cannot be read ({error}); copy the whole folder, or export again"
            ) from error
        if found != digest:
            raise ModelError(
                f"{file} has sha256 {found[:12]}…, but {NAME} states {digest[:12]}…; copy the folder or export again"
            )


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text:.80} is not a number that json can hold")


def _parsed(document: Mapping[str, Any]) -> Manifest:
    """Check a document; raise KeyError where a field is missing, ValueError if one is wrong."""
    aspect = document["aspect"]
    if aspect not in ("pad", "stretch"):
        raise _wrong("aspect", "pad or stretch", aspect)
    dense = None if document["dense"] is None else _table("dense", document["dense"])
    return Manifest(
        modality=_text("modality", document["modality"]),
        channels=tuple(
            map(_channel, _list("channels", document["channels"], _MAX_CHANNELS))
        ),
        image_size=_whole("image_size", document["image_size"], 1, _MAX_SIZE),
        aspect=aspect,
        largest=_whole("largest", document["largest"], 1, 2 * _MAX_SIZE),
        window=_whole("window", document["window"], _MIN_WINDOW, 2 * _MAX_SIZE),
        mask_size=_mask_size(document["mask_size"]),
        dense=None if dense is None else _dense(dense),
        class_names={
            int(value): str(name)
            for value, name in _table("class_names", document["class_names"]).items()
        },
        calibration={
            str(kind): (_rising(kind, curve, "predicted"), _rising(kind, curve, "true"))
            for kind, curve in _table(
                "calibration", document.get("calibration", {})
            ).items()
        },
        sensors=_sensors(document),
        files=_files(_table("files", document["files"])),
        document=document,
    )


def _sensors(document: Mapping[str, Any]) -> tuple[Sensor, ...]:
    """Return the sensors of a document, which share its channels."""
    if "sensors" not in document:
        return ()
    count = len(document["channels"])
    found = [_sensor(one) for one in _list("sensors", document["sensors"], count)]
    channels = sum(len(sensor.averaged) for sensor in found)
    if channels != count or len({sensor.name for sensor in found}) != len(found):
        raise _wrong(
            "sensors", f"different sensors of {count} channels", document["sensors"]
        )
    return tuple(found)


def _sensor(document: Any) -> Sensor:
    table = _table("sensors", document)
    averaged = _list("sensors.averaged", table["averaged"], _MAX_CHANNELS)
    if not all(isinstance(one, bool) for one in averaged):
        raise _wrong("sensors.averaged", "true or false for each channel", averaged)
    size = table["size"]
    if size is not None:
        sides = _list("sensors.size", size, 2)
        if len(sides) != 2:
            raise _wrong("sensors.size", "[width, height]", size)
        size = tuple(_whole("sensors.size", side, 1, 2**31) for side in sides)
    matrix = table["matrix"]
    each = matrix == EACH
    if each:
        matrix = None
    elif matrix is not None:
        matrix = checked_matrix(matrix, "sensors.matrix")
    name = _text("sensors.name", table["name"])
    return Sensor(name, tuple(averaged), matrix, size, each)


def checked_matrix(value: Any, name: str) -> tuple[Numbers, ...]:
    """Return three rows of three numbers, of which the last is not 0; ValueError names the value by `name`."""
    rows = [_list(name, row, 3) for row in _list(name, value, 3)]
    numbers = [number for row in rows for number in row]
    usable = len(numbers) == 9 and all(
        type(number) in (int, float) and abs(number) < 1e12 for number in numbers
    )
    if not usable or abs(numbers[8]) < 1e-12:
        raise _wrong(name, "3 x 3 numbers, the last of which is not 0", value)
    return tuple(tuple(map(float, row)) for row in rows)


def _dense(document: Mapping[str, Any]) -> Dense:
    if not isinstance(document["background"], bool):
        raise _wrong("dense.background", "true or false", document["background"])
    temperature = document.get("temperature", 1.0)
    if type(temperature) not in (int, float) or not 0.01 <= temperature <= 100:
        raise _wrong("dense.temperature", "a number from 0.01 to 100", temperature)
    return Dense(
        document["background"],
        tuple(
            None if value is None else _whole("dense.classes", value, 0, _MAX_CLASS)
            for value in _list("dense.classes", document["classes"], _MAX_CLASSES)
        ),
        float(temperature),
    )


def _rising(kind: str, curve: Any, name: str) -> Numbers:
    values = _list(
        f"calibration.{kind:.80}.{name}",
        _table(f"calibration.{kind:.80}", curve)[name],
        1000,
    )
    if (
        not all(type(value) in (int, float) and 0 <= value <= 1 for value in values)
        or sorted(set(values)) != values
    ):
        raise _wrong(
            f"calibration.{kind:.80}.{name}", "rising numbers from 0 to 1", values
        )
    return tuple(map(float, values))


def _mask_size(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong("mask_size", "[height, width]", value)
    height, width = (_whole("mask_size", side, 1, _MAX_SIZE) for side in value)
    return height, width


def _files(document: Mapping[str, Any]) -> dict[str, str]:
    digests = {
        name: _table(f"files.{name:.80}", file)["sha256"]
        for name, file in document.items()
    }
    if not {ENCODER, DECODER, MASKS} <= set(digests):
        raise _wrong(
            "files", f"at least {ENCODER}, {DECODER} and {MASKS}", sorted(digests)
        )
    for name, digest in digests.items():
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise _wrong("files", "names of letters, digits, dots and hyphens", name)
        if not isinstance(digest, str):
            raise _wrong("files", "a sha256 each", digest)
    return digests


def _channel(document: Any) -> Channel:
    bounds = _table("channels", document)["valid_range"]
    if bounds is not None:
        bounds = _bounds(bounds)
    name, unit, quantity = (
        _text(f"channels.{key}", document[key]) for key in ("name", "unit", "quantity")
    )
    return Channel(name, unit, quantity, bounds)


def _bounds(value: Any) -> tuple[float, float]:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(one is None or type(one) in (int, float) for one in value)
    ):
        low = -math.inf if value[0] is None else value[0]
        high = math.inf if value[1] is None else value[1]
        if (
            low < high
            and max((abs(one) for one in value if one is not None), default=0) < 1e300
        ):
            return float(low), float(high)
    raise _wrong(
        "channels.valid_range",
        "[low, high] with low < high, null where unbounded",
        value,
    )


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _wrong(name, f"a whole number from {low} to {high}", value)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise _wrong(name, "a printable text", value)
    return value


def _list(name: str, value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise _wrong(name, f"a list of 1 to {most} values", value)
    return value


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "a table", value)
    return value


def _wrong(name: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{name} must be {wanted}, got {value!r:.80}")

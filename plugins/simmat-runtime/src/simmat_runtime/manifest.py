"""The manifest of an exported model: inputs and outputs of its files, and their sha256."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
"""Format number, increased when an older reader would misread a change."""
NAME = "manifest.json"
ENCODER, DECODER, DENSE, MASKS = "encoder.onnx", "decoder.onnx", "dense.onnx", "masks.onnx"


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
    """

    background: bool
    classes: tuple[int | None, ...]


@dataclass(frozen=True)
class Manifest:
    """The description of an exported model.

    Attributes:
        modality: name of the sensor.
        channels: C planes of the image, in order.
        image_size: S, the side of the network's input in pixels.
        aspect: "keep" scales the longer side to S and pads; "squash" scales both sides to S.
        largest: longest side of an image in pixels that is looked at as a whole; larger ones are cut into windows.
        window: side of these windows in pixels.
        mask_size: (h, w) of `Prediction.low_res`.
        dense: classes of the dense head; None without one.
        class_names: label value -> name.
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
    files: Mapping[str, str]
    document: Mapping[str, Any]


def read_manifest(folder: Path | str) -> Manifest:
    """Read the manifest of an exported model.

    Raises:
        ModelError: the manifest is missing, damaged, or of a newer format.
    """
    file = Path(folder) / NAME
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"no exported model at {folder}: {NAME} is missing; write one with `simmat export BUNDLE --out {folder}`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({error}); export the model again") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ModelError(
            f"{file} has format {found!r}, this simmat-runtime reads format {FORMAT}; upgrade it, or export again"
        )
    try:
        return _parsed(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file} is damaged ({type(error).__name__}: {error}); export the model again") from error


def check_files(folder: Path | str, manifest: Manifest) -> None:
    """Compare every file with its sha256.

    Raises:
        ModelError: a file is missing or differs from the exported one.
    """
    for name, digest in manifest.files.items():
        file = Path(folder) / name
        try:
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{file} cannot be read ({error}); copy the whole folder, or export again") from error
        if found != digest:
            raise ModelError(
                f"{file} has sha256 {found[:12]}…, but {NAME} states {digest[:12]}…; copy the folder or export again"
            )


def _parsed(document: Mapping[str, Any]) -> Manifest:
    dense = document["dense"]
    height, width = document["mask_size"]
    names = {name: str(file["sha256"]) for name, file in document["files"].items()}
    if any(Path(name).name != name for name in names) or not {ENCODER, DECODER, MASKS} <= set(names):
        raise ValueError(f"files are {sorted(names)}")
    if document["aspect"] not in ("keep", "squash"):
        raise ValueError(f"aspect is {document['aspect']!r}")
    return Manifest(
        modality=str(document["modality"]),
        channels=tuple(_channel(channel) for channel in document["channels"]),
        image_size=int(document["image_size"]),
        aspect=document["aspect"],
        largest=int(document["largest"]),
        window=int(document["window"]),
        mask_size=(int(height), int(width)),
        dense=None if dense is None else Dense(bool(dense["background"]), tuple(dense["classes"])),
        class_names={int(value): str(name) for value, name in document["class_names"].items()},
        files=names,
        document=document,
    )


def _channel(document: Mapping[str, Any]) -> Channel:
    bounds = document["valid_range"]
    if bounds is not None:
        low, high = (
            (-math.inf if bounds[0] is None else float(bounds[0])),
            (math.inf if bounds[1] is None else float(bounds[1])),
        )
        bounds = (low, high)
    return Channel(str(document["name"]), str(document["unit"]), str(document["quantity"]), bounds)

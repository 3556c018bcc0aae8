"""Compare images with the training images of a bundle, and find the option of the sensor that makes them fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from simmat.errors import SimMATError
from simmat.predictor.open import load_files
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.contract import GROUP, Fault, InputContract
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import ImageReader, SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor.encoded import Encoder
    from simmat.predictor.predictor import Predictor

_PARTS = 3
"""A large image is read in so many parts a side."""
_PART_PX = 128

Files = Mapping[str, Path]


def input_faults(encoder: Encoder, images: Sequence[SensorImage]) -> list[Fault]:
    """Return how images, judged together, differ from the training images; nothing if that is not known."""
    if encoder.bundle is None or encoder.bundle.spec.inputs is None:
        return []
    return faults_of(encoder.bundle.spec.inputs, images)


def faults_of(contract: InputContract, images: Sequence[SensorImage]) -> list[Fault]:
    """Return how images, judged together, break a contract; images without its channels are left out."""
    picked = []
    for image in images:
        places = {channel.name: place for place, channel in enumerate(image.channels)}
        if all(name in places for name in contract.names):
            picked.append(image.select([places[name] for name in contract.names]))
    if not picked:
        return []
    return contract.check(picked)


def image_warning(encoder: Encoder, image: SensorImage) -> str:
    """Return how one image differs from the training images; "" if it does not."""
    faults = input_faults(encoder, [image])
    if not faults:
        return ""
    return f"{_joined(faults)}; are unit, scale, order of channels and nodata the same?"


def files_warning(
    predictor: Predictor, files: Sequence[Files], missing: Sequence[str | int] = ()
) -> str:
    """Return how the first images of a call differ together from the training images; "" if they do not.

    Files that cannot be read are left out, as they fail with their own error later.

    Args:
        predictor: the model.
        files: source -> file of each image.
        missing: channels that the files lack.
    """
    bundle = predictor.bundle
    if bundle is None or bundle.spec.inputs is None or missing:
        return ""
    first = files[:GROUP]
    images = list(_images(predictor, first))
    faults = faults_of(bundle.spec.inputs, images)
    if images and not faults:
        return ""
    advice = _repair(predictor, bundle.spec.inputs, first, faults)
    if not images:
        if not advice:
            return ""
        return f"the files cannot be read as the training images were; {advice}"
    which = "the image does not fit the training images"
    if len(images) > 1:
        which = f"the first {len(images)} images, taken together, do not fit the training images"
    return f"{which}: {_joined(faults)}; {advice or _question(faults)}"


def _joined(faults: Sequence[Fault]) -> str:
    """Return at most four faults in words."""
    texts = [fault.text for fault in faults[:4]]
    if len(faults) > 4:
        texts.append(f"{len(faults) - 4} more channels differ")
    return "; ".join(texts)


def _question(faults: Sequence[Fault]) -> str:
    """Return what to check, where no option of the sensor makes the images fit."""
    if any(fault.kind == "order" for fault in faults):
        return "store the channels in the order of the training files, or give each its own --source"
    return "no option of the sensor makes them fit: check exposure, scale and bit depth of the files"


def _images(predictor: Predictor, files: Sequence[Files]) -> Iterator[SensorImage]:
    for one in files:
        try:
            yield sampled(predictor.reader(one))
        except (SimMATError, MemoryError):
            continue


def sampled(reader: ImageReader) -> SensorImage:
    """Return an image in memory as it is, and evenly spaced parts of any other, side by side."""
    if isinstance(reader, SensorImage):
        return reader
    height, width = reader.size_hw
    rows = min(_PART_PX, height)
    columns = min(_PART_PX, width)
    parts = []
    for y0 in np.linspace(0, height - rows, _PARTS).astype(int).tolist():
        for x0 in np.linspace(0, width - columns, _PARTS).astype(int).tolist():
            parts.append(reader.read(Window(y0, x0, y0 + rows, x0 + columns)))
    return SensorImage.from_planes(
        np.concatenate([part.data for part in parts], axis=2),
        parts[0].channels,
        valid=np.concatenate([part.valid for part in parts], axis=2),
        origin=reader.origin,
    )


def _repair(
    predictor: Predictor,
    contract: InputContract,
    files: Sequence[Files],
    faults: Sequence[Fault],
) -> str:
    """Return the option of the sensor with which the files fit; "" if none does."""
    adapter = predictor.adapter
    several = len(adapter.sensors()) > 1
    for part in adapter.sensors():
        for option, value in _candidates(part, faults):
            try:
                changed = adapter.with_options({part.name: {option: value}})
                if predictor.bundle is not None:
                    card = predictor.bundle.spec.card.model_dump()
                    changed = changed.configured(card)
                images = []
                for one in files:
                    images.append(load_files(changed, one, (), frozenset()))
            except (SimMATError, MemoryError):
                continue
            units = [channel.unit for channel in predictor.channels]
            fits = [
                image
                for image in images
                if [channel.unit for channel in image.channels] == units
            ]
            if len(fits) < len(images) or faults_of(contract, fits):
                continue
            name = f"{part.name}.{option}" if several else option
            return f"they fit with --modality-option {name}={_text(value)}"
    return ""


def _candidates(
    part: ModalityAdapter, faults: Sequence[Fault]
) -> Iterator[tuple[str, Any]]:
    """Yield the options of a sensor that may be wrong, with each value that they allow."""
    for fault in faults:
        if fault.kind == "nodata":
            yield "nodata", fault.amount
    for name, field in part.Options.model_fields.items():
        if name in ModalityOptions.model_fields:
            continue
        current = getattr(part.options, name)
        for value in _choices(field.annotation):
            if value != current:
                yield name, value


def _choices(annotation: Any) -> list[str]:
    """Return the texts that an option allows, of `Literal["K", "cK"] | None`."""
    found = []
    for item in get_args(annotation):
        if isinstance(item, str):
            found.append(item)
        else:
            found += _choices(item)
    return found


def _text(value: Any) -> str:
    if isinstance(value, float):
        return format_nodata(value)
    return str(value)

"""Compare images with the training images of a bundle, and find the option of the sensor that makes them fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from simmat.errors import SimMATError
from simmat.io.files import url_of
from simmat.predictor.open import ImageLoader
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.contract import GROUP, Fault, InputContract, thinned
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import ImageReader, SensorImage, Window, same_channels, short_names

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
    """Return how images, judged together, break a contract; images without its channels and units are left out."""
    picked = []
    wanted = list(zip(contract.names, contract.units, strict=True))
    for image in images:
        known = [(channel.name, channel.unit) for channel in image.channels]
        if set(wanted) <= set(known):
            picked.append(image.select([known.index(one) for one in wanted]))
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

    Files that cannot be read are left out, as they fail with their own error later, and so are URLs.

    Args:
        predictor: the model.
        files: source -> file of each image.
        missing: channels that the files lack.
    """
    bundle = predictor.bundle
    if bundle is None or bundle.spec.inputs is None or missing:
        return ""
    first = [one for one in files if not any(map(url_of, one.values()))][:GROUP]
    images = []
    other = ""
    for image in _images(predictor, first):
        if same_channels(image.channels, bundle.spec.sensor_channels):
            images.append(image)
        else:
            other = short_names(image.channels)
    faults = faults_of(bundle.spec.inputs, images)
    if images and not faults:
        return ""
    advice = _repair(predictor, bundle.spec.inputs, first, images, faults)
    if not images:
        if not advice:
            return ""
        read = "cannot be read"
        if other:
            read = f"are read as {other}"
        trained = short_names(bundle.spec.sensor_channels)
        return f"the files {read}, the training images as {trained}; {advice}"
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
            # a few pixels of each, as ten large images may not fit into memory
            yield thinned(sampled(predictor.reader(one)))
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
    images: Sequence[SensorImage],
    faults: Sequence[Fault],
) -> str:
    """Return the option of the sensor with which the files fit; "" if none does.

    Args:
        predictor: the model.
        contract: that of its bundle.
        files: source -> file of each image.
        images: those that could be read, as they are without the option.
        faults: what is wrong with them.
    """
    several = len(predictor.adapter.sensors()) > 1
    for part in predictor.adapter.sensors():
        for option, value in _candidates(part, faults):
            options = {part.name: {option: value}}
            changed = _images_with(predictor, files, options)
            if not changed or faults_of(contract, changed):
                continue
            same = zip(images, changed, strict=False)
            if not all(_is_rescaled(one, other) for one, other in same):
                continue
            name = f"{part.name}.{option}" if several else option
            return f"they fit with --modality-option {name}={_text(value)}"
    return ""


def _images_with(
    predictor: Predictor,
    files: Sequence[Files],
    options: Mapping[str, Mapping[str, Any]],
) -> list[SensorImage]:
    """Read images with other options of the sensor; none if one cannot be read, or has other channels."""
    bundle = predictor.bundle
    if bundle is None:
        return []
    found = []
    try:
        adapter = predictor.adapter.with_options(options)
        adapter = adapter.configured(bundle.spec.card.model_dump())
        loader = ImageLoader(adapter, bundle)
        for one in files:
            reader = loader.reader(one, (), predictor.max_untiled_side)
            found.append(thinned(sampled(reader)))
    except (SimMATError, MemoryError):
        return []
    for image in found:
        if not same_channels(image.channels, bundle.spec.sensor_channels):
            return []
    return found


def _is_rescaled(one: SensorImage, other: SensorImage) -> bool:
    """Return whether two readings of a file differ by scale and offset only, as in another unit."""
    if one.data.shape != other.data.shape:
        return False
    for plane, changed, valid in zip(
        one.data, other.data, one.valid & other.valid, strict=True
    ):
        before = plane[valid].astype(np.float64)
        after = changed[valid].astype(np.float64)
        if before.size < 2 or before.std() == 0:
            continue
        slope, offset = np.polyfit(before, after, 1)
        off = np.abs(slope * before + offset - after).max()
        if off > 1e-3 * max(after.std(), 1e-12):
            return False
    return True


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

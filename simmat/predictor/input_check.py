"""Compare images with the training images of a bundle, and find the option of the sensor that makes them fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np

from simmat.bundle import Bundle
from simmat.errors import SimMATError
from simmat.io.files import url_of
from simmat.predictor.open import ImageLoader
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.contract import GROUP, Fault, InputContract, thinned
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import ImageReader, SensorImage, Window, same_channels, short_names

_PARTS = 3
"""A large image is read in so many parts a side."""
_PART_PX = 128

Files = Mapping[str, Path]


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


def image_warning(bundle: Bundle | None, image: SensorImage) -> str:
    """Return how one image differs from the training images; "" if it does not, or if those are not known."""
    if bundle is None or bundle.spec.inputs is None:
        return ""
    faults = faults_of(bundle.spec.inputs, [image])
    if not faults:
        return ""
    return f"{_joined(faults)}; are unit, scale, order of channels and nodata the same?"


def files_warning(
    bundle: Bundle | None,
    adapter: ModalityAdapter,
    files: Iterable[Files],
    largest: int,
) -> str:
    """Return how the first images of a call differ together from the training images; "" if they do not.

    Files that cannot be read are left out, as they fail with their own error later, and so are URLs.

    Args:
        bundle: that of the model; None if it has none.
        adapter: the sensor with its options.
        files: source -> file of each image.
        largest: longest side of an image that is read as a whole, if it can be read in parts.
    """
    if bundle is None or bundle.spec.inputs is None:
        return ""
    contract = bundle.spec.inputs
    first = list(islice(_local(files), GROUP))
    images = []
    read = "cannot be read"
    for one in first:
        image = _image(ImageLoader(adapter, bundle), one, largest)
        if image is None:
            continue
        if same_channels(image.channels, bundle.spec.sensor_channels):
            images.append(image)
        else:
            read = f"are read as {short_names(image.channels)}"
    faults = faults_of(contract, images)
    if images and not faults:
        return ""
    advice = _repair(bundle, adapter, first, largest, images, faults)
    if images:
        which = "the image does not fit the training images"
        if len(images) > 1:
            which = f"the first {len(images)} images, taken together, do not fit the training images"
        return f"{which}: {_joined(faults)}; {advice or _question(faults)}"
    if not advice:
        return ""
    trained = short_names(bundle.spec.sensor_channels)
    return f"the files {read}, the training images as {trained}; {advice}"


def _local(files: Iterable[Files]) -> Iterator[Files]:
    """Yield the files that are on this machine."""
    for one in files:
        if not any(map(url_of, one.values())):
            yield one


def _image(loader: ImageLoader, files: Files, largest: int) -> SensorImage | None:
    """Return a few pixels of an image, as ten large ones may not fit into memory; None if it cannot be read."""
    try:
        return thinned(sampled(loader.reader(files, (), largest)))
    except (SimMATError, MemoryError):
        return None


def _joined(faults: Sequence[Fault]) -> str:
    """Return at most four faults in words."""
    texts = []
    for fault in faults[:4]:
        texts.append(fault.text)
    if len(faults) > 4:
        texts.append(f"{len(faults) - 4} more channels differ")
    return "; ".join(texts)


def _question(faults: Sequence[Fault]) -> str:
    """Return what to check, where no option of the sensor makes the images fit."""
    if any(fault.kind == "order" for fault in faults):
        return "store the channels in the order of the training files, or give each its own --source"
    return "no option of the sensor makes them fit: check exposure, scale and bit depth of the files"


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
    bundle: Bundle,
    adapter: ModalityAdapter,
    files: Sequence[Files],
    largest: int,
    images: Sequence[SensorImage],
    faults: Sequence[Fault],
) -> str:
    """Return the option of the sensor with which the files fit; "" if none does.

    Args:
        bundle: that of the model.
        adapter: the sensor with its options.
        files: source -> file of each image.
        largest: see `files_warning`.
        images: those that could be read, as they are without the option.
        faults: what is wrong with them.
    """
    several = len(adapter.sensors()) > 1
    for part in adapter.sensors():
        for option, value in _candidates(part, faults):
            options = {part.name: {option: value}}
            changed = _images_with(bundle, adapter, options, files, largest)
            if _fit(bundle, images, changed):
                name = f"{part.name}.{option}" if several else option
                return f"they fit with --modality-option {name}={_text(value)}"
    return ""


def _images_with(
    bundle: Bundle,
    adapter: ModalityAdapter,
    options: Mapping[str, Mapping[str, Any]],
    files: Sequence[Files],
    largest: int,
) -> list[SensorImage]:
    """Read images with other options of the sensor; none if one cannot be read, or has other channels."""
    try:
        changed = adapter.with_options(options)
        changed = changed.configured(bundle.spec.card.model_dump())
    except SimMATError:
        return []
    found = []
    for one in files:
        image = _image(ImageLoader(changed, bundle), one, largest)
        if image is None:
            return []
        if not same_channels(image.channels, bundle.spec.sensor_channels):
            return []
        found.append(image)
    return found


def _fit(
    bundle: Bundle, images: Sequence[SensorImage], changed: Sequence[SensorImage]
) -> bool:
    """Return whether images that are read with another option fit, and differ only in unit or nodata."""
    contract = bundle.spec.inputs
    if contract is None or not changed or faults_of(contract, changed):
        return False
    return all(map(_is_rescaled, images, changed))


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

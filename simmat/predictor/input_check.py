"""Compare images with the training images of a bundle, and find the option of the sensor that makes them fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, get_args

import numpy as np

from simmat.bundle import Bundle
from simmat.errors import SimMATError
from simmat.io.paths import url_of
from simmat.predictor.open import ImageLoader
from simmat.sensors.adapter import ModalityAdapter, PathsBySource
from simmat.sensors.contract import GROUP, Fault, InputContract, thinned
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import ImageReader, SensorImage, Window, short_names

_PARTS = 3
"""A large image is read in so many parts a side."""
_PART_PX = 128
_NO_OPTION = "no option of the sensor makes them fit: check exposure, scale, bit depth and order of the channels"


def image_warning(bundle: Bundle | None, image: SensorImage) -> str:
    """Return how one image differs from the training images; "" if it does not, or if those are not known."""
    if bundle is None or bundle.spec.inputs is None:
        return ""
    contract = bundle.spec.inputs
    faults = contract.check(_comparable(contract, [image]))
    if not faults:
        return ""
    return f"{_joined(faults)}; are unit, scale, order of channels and nodata the same?"


def files_warning(
    bundle: Bundle | None,
    adapter: ModalityAdapter,
    files: Iterable[PathsBySource],
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
    local = (one for one in files if not any(map(url_of, one.values())))
    first = list(islice(local, GROUP))
    readable = _read(bundle, adapter, first, largest)
    images = _comparable(contract, readable)
    faults = contract.check(images)
    if images and not faults:
        return ""
    advice = ""
    for changed, option in _with_other_options(bundle, adapter, faults):
        read = _comparable(contract, _read(bundle, changed, first, largest))
        if read and len(read) == len(first) and not contract.check(read):
            advice = f"they fit with --modality-option {option}"
            break
    if images:
        which = "the image does not fit the training images"
        if len(images) > 1:
            which = f"the first {len(images)} images, taken together, do not fit the training images"
        return f"{which}: {_joined(faults)}; {advice or _NO_OPTION}"
    if not advice:
        return ""
    how = "cannot be read"
    if readable:
        how = f"are read as {short_names(readable[0].channels)}"
    return f"the files {how}, the training images as {short_names(bundle.spec.sensor_channels)}; {advice}"


def _read(
    bundle: Bundle,
    adapter: ModalityAdapter,
    files: Sequence[PathsBySource],
    largest: int,
) -> list[SensorImage]:
    """Read a few pixels of each image, as ten large ones may not fit into memory; leave out what cannot be read."""
    loader = ImageLoader(adapter, bundle)
    found = []
    for one in files:
        with suppress(SimMATError, MemoryError):
            found.append(thinned(sampled(loader.reader(one, (), largest))))
    return found


def _comparable(
    contract: InputContract, images: Sequence[SensorImage]
) -> list[SensorImage]:
    """Return the contract's channels of images; those without these channels and units are left out."""
    found = []
    wanted = list(zip(contract.names, contract.units, strict=True))
    for image in images:
        known = [(channel.name, channel.unit) for channel in image.channels]
        if set(wanted) <= set(known):
            found.append(image.select([known.index(one) for one in wanted]))
    return found


def _joined(faults: Sequence[Fault]) -> str:
    """Return at most four faults in words."""
    texts = [fault.text for fault in faults]
    if len(texts) > 4:
        texts[4:] = [f"{len(texts) - 4} more channels differ"]
    return "; ".join(texts)


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


def _with_other_options(
    bundle: Bundle, adapter: ModalityAdapter, faults: Sequence[Fault]
) -> Iterator[tuple[ModalityAdapter, str]]:
    """Yield the sensor with each value of each option that may be wrong, and this option as a command takes it."""
    for part in adapter.sensors():
        changes = []
        for fault in faults:
            if fault.kind == "nodata":
                changes.append(("nodata", format_nodata(fault.amount)))
        for name, field in part.Options.model_fields.items():
            if name not in ModalityOptions.model_fields:
                changes += [(name, value) for value in _choices(field.annotation)]
        for name, value in changes:
            if value == getattr(part.options, name):
                continue
            try:
                changed = adapter.with_options({part.name: {name: value}})
                changed = changed.configured(bundle.spec.card.model_dump())
            except SimMATError:
                continue
            yield changed, f"{part.name}.{name}={value}"


def _choices(annotation: Any) -> Iterator[str]:
    """Yield the texts that an option allows, of `Literal["K", "cK"] | None`."""
    for item in get_args(annotation):
        if isinstance(item, str):
            yield item
        else:
            yield from _choices(item)

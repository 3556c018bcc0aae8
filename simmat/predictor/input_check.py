"""Compare images with the training images of a bundle, and find the option of the sensor that makes them fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, get_args

import numpy as np

from simmat.bundle import Bundle
from simmat.data.pipeline import PreparedImage
from simmat.drawing.display import spread_text
from simmat.errors import SimMATError
from simmat.io.paths import url_of
from simmat.predictor.open import ImageLoader
from simmat.sensors.adapter import ModalityAdapter, PathsBySource
from simmat.sensors.contract import GROUP, Fault, InputContract, thinned
from simmat.sensors.normalize import CLIP
from simmat.sensors.options import ModalityOptions, format_nodata
from simmat.types import (
    RGB_QUANTITY,
    Channel,
    ImageReader,
    SensorImage,
    Window,
    short_names,
)

# a value is far from those of training from this share of the value at which normalized values are clipped
_FAR = 0.99
# share of far values up to which a channel fits
_MAX_FAR_SHARE = 0.5
# standard deviation, as a share of that of training, below which a channel is flat
_FLAT = 0.02
# pixels along each side, evenly spaced, that are enough to see this
_SAMPLED_SIDE = 128
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


def domain_shift_warning(prepared: PreparedImage, channels: Sequence[Channel]) -> str:
    """Return which channel's values are far from the training values, as in another unit or bit depth; "" if none is.

    RGB channels are scaled by the foundation model's statistics, which say nothing about the training images.
    """
    step = max(prepared.content.shape[0] // _SAMPLED_SIDE, 1)
    content = prepared.content[::step, ::step]  # (s, s)
    for channel, plane in zip(
        channels, prepared.planes[:, ::step, ::step], strict=True
    ):
        if (
            channel.quantity == RGB_QUANTITY
            or channel.mean is None
            or channel.std is None
        ):
            continue
        valid = plane[content & (plane != 0)]  # invalid pixels are 0
        if not valid.numel():
            continue
        if float((valid.abs() >= _FAR * CLIP).float().mean()) > _MAX_FAR_SHARE:
            problem = f"most values of channel {channel.name!r} are far from the training values"
        elif valid.numel() > 1 and float(valid.std()) < _FLAT:
            problem = f"the values of channel {channel.name!r} vary much less than the training values"
        else:
            continue
        return f"{problem} ({spread_text(channel)}); are unit, bit depth and exposure the same?"
    return ""


def files_warning(
    bundle: Bundle | None,
    adapter: ModalityAdapter,
    files: Iterable[PathsBySource],
    max_loaded_side: int,
) -> str:
    """Return how the first images of a call differ together from the training images; "" if they do not.

    Files that cannot be read are left out, as they fail with their own error later, and so are URLs.

    Args:
        bundle: that of the model; None if it has none.
        adapter: the sensor with its options.
        files: source -> file of each image.
        max_loaded_side: longest side in pixels of an image that is read as a whole if it can be read in parts.
    """
    if bundle is None or bundle.spec.inputs is None:
        return ""
    contract = bundle.spec.inputs
    local = (one for one in files if not any(map(url_of, one.values())))
    first = list(islice(local, GROUP))
    readable = _read(bundle, adapter, first, max_loaded_side)
    images = _comparable(contract, readable)
    faults = contract.check(images)
    if images and not faults:
        return ""
    advice = ""
    for changed, option in _with_other_options(bundle, adapter, faults):
        read = _comparable(contract, _read(bundle, changed, first, max_loaded_side))
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
    max_loaded_side: int,
) -> list[SensorImage]:
    """Read a few pixels of each image, as ten large ones may not fit into memory; leave out what cannot be read."""
    loader = ImageLoader(adapter, bundle)
    found = []
    for one in files:
        with suppress(SimMATError, MemoryError):
            found.append(thinned(sampled(loader.reader(one, (), max_loaded_side))))
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

"""The unit of a file's numbers, as the file itself says: json `{"unit": "cK"}` in its description."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.files import parse_json
from simmat.io.images.values import ImageFile
from simmat.types import BoolArray, SensorImage

_SURELY_ANOTHER = 9
"""So many times more different numbers out of range than in it mean another unit."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How stored numbers become physical ones: `stored / per + offset`.

    Attributes:
        name: as files state it ("cK", "mm").
        per: stored numbers that make one of the physical unit.
        offset: in the physical unit.
    """

    name: str
    per: float = 1.0
    offset: float = 0.0

    def physical(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """Return stored numbers in the physical unit; in float64, for 16-bit numbers need all their digits."""
        return np.asarray(stored.astype(np.float64) / self.per + self.offset)

    def describe(self, quantity: str) -> str:
        """Return the text that `stated_unit` reads back, for `write_image(description=)`."""
        return json.dumps({"quantity": quantity, "unit": self.name})


def stated_unit(image: ImageFile, known: Mapping[str, Unit], *, no_unit: Collection[str] = ()) -> Unit | None:
    """Return the unit that a TIFF's ImageDescription or a PNG's text "Description" states.

    Args:
        image: the file.
        known: name -> unit.
        no_unit: names by which a file says that its numbers have none.

    Returns:
        None where the file states none.

    Raises:
        DataError: it states a unit that is not known.
    """
    try:
        values = parse_json(image.description)
    except ValueError:
        return None
    if not isinstance(values, dict) or "unit" not in values or values["unit"] in no_unit:
        return None
    unit = known.get(values["unit"]) if isinstance(values["unit"], str) else None
    if unit is None:
        raise DataError(
            f"{image.path}: its description states unit {values['unit']!r}; known: {', '.join([*known, *no_unit])}"
        )
    return unit


def agreed_unit(image: ImageFile, said: Unit | None, meant: Unit) -> Unit:
    """Return the unit that the user states by an option.

    Args:
        image: the file.
        said: the unit that the file states, None for none.
        meant: the user's.

    Raises:
        DataError: the file states another one.
    """
    if said is not None and said != meant:
        raise DataError(
            f"{image.path}: says its unit is {said.name}, but the option unit says {meant.name}; leave the option out "
            "(--modality-option, card.toml), or correct the file"
        )
    return meant


def require_measured(
    image: SensorImage, values: npt.NDArray[np.floating], advice: str, *, measured: BoolArray | None = None
) -> SensorImage:
    """Return an image of one channel; DataError where its numbers can hardly be real, as in another unit.

    That is where more than nine of ten different numbers lie outside of the channel's range; a fill value is one,
    however often it stands there. An image of which nothing was measured is returned as it is.

    Args:
        image: (1, H, W), whose channel has a valid range.
        values: its numbers before any became invalid.
        advice: what to try, without a full stop.
        measured: (1, H, W) False where the file or the user calls a number missing.
    """
    channel = image.channels[0]
    taken = np.isfinite(values) if measured is None else np.isfinite(values) & measured
    within, without = values[taken & image.valid], values[taken & ~image.valid]
    if channel.valid_range is None or within.size >= without.size:
        return image  # most images; the different numbers need not be sorted out
    if within.size and _SURELY_ANOTHER * np.unique(within).size >= np.unique(without).size:
        return image
    low, high = channel.valid_range
    many = "most of its numbers lie outside of" if within.size else "no pixel lies within"
    raise DataError(
        f"{image.origin}: {many} {low:g} to {high:g} {channel.unit}, got {values[taken].min():.6g} to "
        f"{values[taken].max():.6g} {channel.unit}; is its unit another one? {advice}"
    )

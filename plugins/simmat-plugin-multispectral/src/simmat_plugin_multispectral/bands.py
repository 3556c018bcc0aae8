"""Identify bands, by the descriptions in the file or by the standard of a satellite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simmat_plugin_geo.geotiff import BandTags, is_count

from simmat.errors import DataError

_NUMBER = r"(\d+(?:\.\d+)?)"
# not after a letter: "B8" is a band number
_FROM = r"(?:(?<![\w.])" + _NUMBER + r"\s*(?:-|–|to)\s*)?"
_WITH_UNIT = re.compile(
    _FROM + _NUMBER + r"\s*(nm|nanomet\w*|um|µm|μm|micromet\w*)", re.IGNORECASE
)
_BAND_AND_DASH = re.compile(r"\b(?:band|channel)\s*\d+\s+[-–]\s", re.IGNORECASE)
_MAX_BAND_RATIO = 3  # largest ratio of the ends of a band
_UM_TAGS = ("central_wavelength_um", "wavelength_um")
_NM_TAGS = ("central_wavelength_nm", "wavelength_nm")


@dataclass(frozen=True, slots=True)
class NamedBand:
    """The name of a band in `--channels`, and its centre wavelength if it is known."""

    name: str
    wavelength_um: float | None = None


@dataclass(frozen=True, slots=True)
class Satellite:
    """The bands of a satellite's standard products.

    Attributes:
        title: name of the satellite.
        bands: its band name in lower case -> our band.
        orders: band names of files without descriptions, one order for each number of bands; files with other numbers
            are refused. Empty if files with different orders are in use.
    """

    title: str
    bands: dict[str, NamedBand]
    orders: tuple[tuple[str, ...], ...]


_S2 = {
    # Sentinel-2A centre wavelengths, ESA Sentinel-2 Spectral Response Functions
    "b1": NamedBand("coastal", 0.443),
    "b2": NamedBand("blue", 0.492),
    "b3": NamedBand("green", 0.560),
    "b4": NamedBand("red", 0.665),
    "b5": NamedBand("rededge1", 0.704),
    "b6": NamedBand("rededge2", 0.741),
    "b7": NamedBand("rededge3", 0.783),
    "b8": NamedBand("nir", 0.833),
    "b8a": NamedBand("nir08", 0.865),
    "b9": NamedBand("watervapour", 0.945),
    "b10": NamedBand("cirrus", 1.374),
    "b11": NamedBand("swir1", 1.614),
    "b12": NamedBand("swir2", 2.202),
}
_L8 = {
    # Landsat 8 OLI, Landsat 8 Data Users Handbook
    "b1": NamedBand("coastal", 0.443),
    "b2": NamedBand("blue", 0.482),
    "b3": NamedBand("green", 0.561),
    "b4": NamedBand("red", 0.655),
    "b5": NamedBand("nir", 0.865),
    "b6": NamedBand("swir1", 1.609),
    "b7": NamedBand("swir2", 2.201),
}
# B8A stands after B8 in some stacks of bands, and last in others
SENTINEL2 = Satellite("Sentinel-2", _S2, ())
LANDSAT8 = Satellite("Landsat 8", _L8, (tuple(_L8),))


def bands_of_file(bands: Sequence[BandTags], path: Path) -> tuple[NamedBand, ...]:
    """Name each band by its description, or `band0`, `band1`, … without one.

    A wavelength comes from the band's metadata (GDAL's CENTRAL_WAVELENGTH_UM, ENVI's wavelength with its units) or
    from a number with its unit in the description ("red 665 nm").

    Raises:
        DataError: two bands have the same name.
    """
    named = tuple(
        NamedBand(_plain(band.description) or f"band{index}", _wavelength(band))
        for index, band in enumerate(bands)
    )
    names = [band.name for band in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{path}: several bands are described as {twice}; give each its own, or use --modality raster"
        )
    return named


def bands_of_satellite(
    satellite: Satellite, bands: Sequence[BandTags], path: Path
) -> tuple[NamedBand, ...]:
    """Name each band by the satellite's standard: by description, or by position if the number of bands is unambiguous.

    Descriptions that only count the bands of the file ("Band 1", "Band 2", …), as programs add them, are ignored.

    Raises:
        DataError: a description is not a band of the satellite, or there are none and the number fits no product.
    """
    # GDAL: "B4, central wavelength …"
    said = [_band_number(band.description.partition(",")[0]) for band in bands]
    if not any(said) or all(
        is_count(band.description, index) for index, band in enumerate(bands, 1)
    ):
        order = next(
            (order for order in satellite.orders if len(order) == len(bands)), None
        )
        if order is None:
            counts = " or ".join(str(len(order)) for order in satellite.orders)
            why = (
                f"products have {counts}"
                if counts
                else "bands are stacked in more than one order"
            )
            raise DataError(
                f"{path}: {len(bands)} bands without descriptions{' but their count' if any(said) else ''}; "
                f"{satellite.title} {why}. Describe them ({', '.join(satellite.bands)}), or use --modality "
                "multispectral, with --modality-option scale=… if the file does not state its scale"
            )
        said = list(order)
    own = {band.name: band for band in satellite.bands.values()}
    found = [satellite.bands.get(name) or own.get(name) for name in said]
    if None in found or len(set(found)) != len(found):
        raise DataError(
            f"{path}: bands are described as {[band.description for band in bands]}; {satellite.title} has "
            f"{', '.join(satellite.bands)}, each once"
        )
    return tuple(band for band in found if band is not None)


def _band_number(description: str) -> str:
    """Return "b4" for "B04", "B4" and "SR_B4"; else the description in lower case."""
    text = description.strip().lower()
    if match := re.fullmatch(r"(?:sr_|band[ _]?)?b?0*(\d+a?)", text):
        return f"b{match[1]}"
    return text


def _plain(description: str) -> str:
    """Return a name valid in `--channels`: lower case, no commas or spaces."""
    return re.sub(r"[^a-z0-9._+]+", "-", description.lower()).strip("-")


def _wavelength(band: BandTags) -> float | None:
    tags = band.tags or {}
    for key in _UM_TAGS:
        if match := re.fullmatch(_NUMBER, tags.get(key, "").strip()):
            return float(match[1]) or None
    for key in _NM_TAGS:
        if match := re.fullmatch(_NUMBER, tags.get(key, "").strip()):
            return float(match[1]) / 1000 or None
    unit = tags.get("wavelength_units", tags.get("wavelength_unit", ""))
    for text in (f"{tags.get('wavelength', '')} {unit}", band.description):
        if match := _WITH_UNIT.search(_BAND_AND_DASH.sub(" ", text)):
            # of a range "636-673 nm"
            low, high = float(match[1] or match[2]), float(match[2])
            centre = (
                (low + high) / 2
                if low <= _MAX_BAND_RATIO * high and high <= _MAX_BAND_RATIO * low
                else high
            )
            return centre / (1000 if match[3].lower().startswith("n") else 1) or None
    return None

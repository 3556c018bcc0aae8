"""Find files per band, as cameras with a lens for each band write them, and draft the `sensor.toml` that joins them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simmat.errors import SimMATError, few_of
from simmat.io.xmp import read_xmp
from simmat_plugin_guess.facts import FileFacts
from simmat_plugin_guess.look import file_facts

_MAX_BANDS = 16
_LONGEST = 40
"""Characters of the name of a band, at most."""
_COMPLETE = 0.8
"""Share of the captures that have every band, at least."""


@dataclass(frozen=True)
class Band:
    """The files of one band, or of one camera beside the others.

    Attributes:
        ending: what their names end with, such as "_1.tif".
        facts: what the first of them shows.
        name: of the source.
        name_evidence: where the name comes from.
        wavelength_um: centre wavelength; None if the files do not state it.
        wavelength_evidence: where it comes from.
    """

    ending: str
    facts: FileFacts
    name: str
    name_evidence: str
    wavelength_um: float | None = None
    wavelength_evidence: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as json values."""
        values = asdict(self)
        del values["facts"]
        return {**values, "planes": self.facts.planes, "dtype": self.facts.dtype}


@dataclass(frozen=True)
class BandFiles:
    """Files of one folder that are the bands of one camera.

    Attributes:
        folder: where they are.
        captures: how many moments there are.
        incomplete: the names of those without a file for each band.
        bands: by the ends of their names.
    """

    folder: Path
    captures: int
    incomplete: tuple[str, ...]
    bands: tuple[Band, ...]

    def holds(self, file: Path) -> bool:
        """Return whether a file is of one of the bands."""
        endings = [band.ending for band in self.bands]
        return file.parent == self.folder and file.name.endswith(tuple(endings))

    def evidence(self) -> Iterator[str]:
        """Yield what speaks for it, a sentence each."""
        ends = ", ".join(f"*{band.ending}" for band in self.bands)
        complete = self.captures - len(self.incomplete)
        yield f"{complete} of {self.captures} names have the same {len(self.bands)} ends: {ends}"
        if self.incomplete:
            yield f"names without some of them: {few_of(list(self.incomplete))}; remove their files"
        sizes = {band.facts.size_hw: band.name for band in self.bands}
        if len(sizes) > 1:
            yield "pixels (width x height): " + ", ".join(
                f"{name} {width}x{height}" for (height, width), name in sizes.items()
            )

    def as_json(self) -> dict[str, Any]:
        """Return it as json values."""
        return {
            "folder": str(self.folder),
            "captures": self.captures,
            "incomplete": list(self.incomplete),
            "evidence": list(self.evidence()),
            "bands": [band.as_json() for band in self.bands],
            "sensor_toml": self.draft(),
        }

    def draft(self) -> str:
        """Return a `sensor.toml` that reads the bands as they are stored; each line says where it comes from."""
        text = 'format = 1\nname = "my-sensor"  # your camera\'s name\n'
        text += "\n# the first source has the pixel grid of the masks\n"
        for band in self.bands:
            text += f'''[[source]]
name = "{band.name}"  # {band.name_evidence}
files = "*{band.ending}"  # such as {band.facts.path.name}
planes = {band.facts.planes}

'''
        text += """\
[defaults]
quantity = "counts"  # what is measured
unit = "count"  # the files do not state a unit: value = stored * scale + offset
# nodata = 0  # a further number that means no measurement, if any
"""
        for band in self.bands:
            for plane in range(band.facts.planes):
                text += _channel(band, plane)
        return text


def _channel(band: Band, plane: int) -> str:
    """Return the table of a channel."""
    name = band.name
    if band.facts.planes > 1:
        name += str(plane)
    text = f'\n[[channel]]\nname = "{name}"\nsource = "{band.name}"\n'
    if band.facts.planes > 1:
        text += f"plane = {plane}\n"
    elif band.wavelength_um is not None:
        text += (
            f"wavelength_um = {band.wavelength_um:g}  # {band.wavelength_evidence}\n"
        )
    low, high = band.facts.low[plane], band.facts.high[plane]
    return text + f"# {low:.6g} to {high:.6g} in {band.facts.path.name}\n"


def find_band_files(files: Sequence[Path]) -> BandFiles | None:
    """Return the bands of files of one folder and ending, as in `IMG_0001_1.tif`; None if they are something else.

    Several names must have the same ends behind the last "_", or the tags must name a band for each.
    """
    captures: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in files:
        capture, mark, end = file.name.rpartition("_")
        if re.fullmatch(r"[\w.-]+", end) and file.name.isprintable():
            captures[capture][mark + end] = file
    if not captures:
        return None
    common = Counter(frozenset(found) for found in captures.values())
    ends, complete = common.most_common(1)[0]
    if not 2 <= len(ends) <= _MAX_BANDS or complete < _COMPLETE * len(captures):
        return None
    incomplete = [name for name, found in captures.items() if set(found) != ends]
    whole = next(found for found in captures.values() if set(found) == ends)
    bands = []
    for ending in sorted(ends, key=_natural):
        try:
            facts = file_facts(whole[ending])
        except (SimMATError, MemoryError):
            return None
        if not facts.is_label:
            bands.append(_band(ending, facts))
    if len({band.name for band in bands}) < len(bands):
        bands = [_band(band.ending, band.facts, {}) for band in bands]
    stated = all(band.name_evidence.startswith("XMP") for band in bands)
    if len(bands) < 2 or (len(captures) == 1 and not stated):
        return None
    return BandFiles(files[0].parent, len(captures), tuple(incomplete), tuple(bands))


def _natural(ending: str) -> tuple[int, str]:
    """Return what orders ends: "_2.tif" before "_10.tif"."""
    number = re.search(r"\d+", ending)
    return (int(number[0]) if number else 0), ending


def _band(ending: str, facts: FileFacts, tags: Mapping[str, str] | None = None) -> Band:
    """Return the band of files, named by the tags of the first, or by the ends of their names."""
    if tags is None:
        tags = read_xmp(facts.path)
    file = facts.path.name
    end = Path(ending).stem
    name = _slug(end)
    if name.isdigit():
        name = f"band{name}"
    name_evidence = f"the names end with {end}"
    stated = tags.get("BandName", "").strip()
    if _slug(stated) and stated.isprintable() and len(stated) <= _LONGEST:
        name = _slug(stated)
        name_evidence = f"XMP tag BandName of {file}: {stated}"
    try:
        wavelength_nm = float(tags.get("CentralWavelength", ""))
    except ValueError:
        return Band(ending, facts, name, name_evidence)
    if not 100 <= wavelength_nm <= 20_000:
        return Band(ending, facts, name, name_evidence)
    evidence = f"XMP tag CentralWavelength of {file}: {wavelength_nm:g} nm"
    wavelength_um = round(wavelength_nm / 1000, 6)
    return Band(ending, facts, name, name_evidence, wavelength_um, evidence)


def _slug(text: str) -> str:
    """Return a text as the name of a source: lower case letters, digits and single hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))

"""The stored number that means "no measurement": one for all files of a sensor, or one for each source.

It is a number of the file, before scale, offset, filter or min-max; see `simmat.io.nodata`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from simmat.errors import did_you_mean
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import is_finite_number


def parse_nodata(text: str) -> float | dict[str, float]:
    """Read a number, or one a source: "-9999", "depth=0,thermal=-9999".

    Raises:
        ValueError: an item is neither, or a source is named twice.
    """
    if "=" not in text:
        return _number(text)
    table: dict[str, float] = {}
    for item in text.split(","):
        source, _, number = (part.strip() for part in item.partition("="))
        if source in table:
            raise ValueError(f"names {source} more than once")
        table[source] = _number(number)
    return table


def per_file(nodata: float | Mapping[str, float] | None, files: Mapping[str, Path]) -> dict[Path, float]:
    """Return what is said of each file of a sample.

    Args:
        nodata: for all sources, or source name -> number.
        files: source name -> file.
    """
    if nodata is None:
        return {}
    if isinstance(nodata, Mapping):
        return {Path(files[source]): value for source, value in nodata.items() if source in files}
    return {Path(file): nodata for file in files.values()}


def describe_nodata(nodata: float | Mapping[str, float]) -> str:
    """Return the words that `--nodata` takes."""
    if isinstance(nodata, Mapping):
        return ",".join(f"{source}={_in_digits(value)}" for source, value in nodata.items())
    return _in_digits(nodata)


def nodata_problems(nodata: float | Mapping[str, float] | None, adapter: ModalityAdapter) -> Iterator[str]:
    """Say where a nodata does not fit a sensor: a source it has not, one number for the files of several sensors."""
    sources = adapter.source_names()
    if isinstance(nodata, Mapping):
        for name in nodata:
            if name not in sources:
                hint = did_you_mean(name, sources, otherwise="")
                yield f"nodata: {adapter.name} has no source {name!r}, it has {', '.join(sources)}{hint}"
    elif nodata is not None and len(adapter.sensors()) > 1:
        number, said = _in_digits(nodata), describe_nodata(dict.fromkeys(sources, nodata))
        yield (
            f"nodata = {number} would be one number for all sensors of {adapter.name}, where it means a measurement "
            f"to some; say it for the sources it holds for: --nodata {sources[-1]}={number}, for all --nodata {said}"
        )


def _in_digits(value: float) -> str:
    """Return a number so that reading it gives the same number."""
    return repr(float(value)).removesuffix(".0")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"must be a number, or SOURCE=NUMBER by comma, such as depth=0,thermal=-9999, got {text!r}"
        ) from None


def _checked(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_nodata(value)
    numbers = list(value.values()) if isinstance(value, Mapping) else [value]
    if not numbers or any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise ValueError("must be a number, or a table of numbers, one a source")
    if not all(map(is_finite_number, numbers)):
        raise ValueError(
            "NaN, infinity and numbers that no float holds always mean a missing value and need not be said; leave "
            "nodata out"
        )
    return value


NodataField = Annotated[float | dict[str, float], BeforeValidator(_checked)]
"""A field of a config or card: a finite number, a table of them, or the text of `parse_nodata`."""

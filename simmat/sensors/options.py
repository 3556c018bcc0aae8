"""What users say about a sensor: its name, its options, and the number that means "no measurement" in its files.

An option is set by `--modality-option`, a config file or Python; otherwise by `[modality_options]` of the data card;
otherwise the file itself decides. Contradictions are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from simmat.documents import StrictModel, allowed_values, parse
from simmat.errors import ConfigError, did_you_mean
from simmat.io.paths import with_home
from simmat.types import MAX_CROP, MIN_CROP


def parse_nodata(text: str) -> float | dict[str, float]:
    """Read a number, or one for each source: "-9999", "depth=0,thermal=-9999".

    It is a number as stored in the file, before scale, offset, filter or min-max.

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


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            "must be a number, or SOURCE=NUMBER by comma, such as depth=0,thermal=-9999"
        ) from None


def _parsed_nodata(value: Any) -> Any:
    if isinstance(value, str):
        return parse_nodata(value)
    return value


NodataField = Annotated[
    float | Annotated[dict[str, float], Field(min_length=1)],
    BeforeValidator(_parsed_nodata),
]
"""A field of a config or card: a finite number, a table of them, or the text of `parse_nodata`."""


def _crop_side(side: int) -> int:
    """Accept 0 or the side of a window."""
    if side and not MIN_CROP <= side <= MAX_CROP:
        raise ValueError(f"must be 0 or from {MIN_CROP} to {MAX_CROP}")
    return side


CropSide = Annotated[int, AfterValidator(_crop_side)]
"""Side in pixels of the windows of a training; 0 for whole images."""


class ModalityOptions(StrictModel):
    """The base of a sensor's options: a subclass has one field for each, with a default and a description.

    The default is how a file that states nothing is read; None leaves it to the file.
    """

    nodata: NodataField | None = Field(
        default=None,
        description="Stored number that means no measurement, or SOURCE=NUMBER by comma; --nodata and the data card "
        "set it too.",
    )


OptionsT = TypeVar("OptionsT", bound=ModalityOptions)


def parse_options(
    model: type[OptionsT], values: Mapping[str, Any], sensor: str
) -> OptionsT:
    """Return option -> value as a sensor's `Options`; ConfigError with all problems names the sensor."""
    return parse(model, dict(values), f"options of modality {sensor!r}")


def options_by_sensor(
    options: Mapping[str, Any], sensors: Sequence[str], *, with_others: bool = False
) -> dict[str, dict[str, Any]]:
    """Return sensor -> option -> value, from the same or from SENSOR.OPTION -> value.

    Where a modality consists of one of `sensors`, it may also be option -> value.

    Args:
        with_others: options of other sensors are allowed, as in a data card.

    Raises:
        ConfigError: an option of one of several sensors does not name its sensor, or is of none of them, or is given
            twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in options.items():
        sensor, dot, option = key.rpartition(".")
        if isinstance(value, Mapping):
            items = [(key, str(name), item) for name, item in value.items()]
        elif dot:
            items = [(sensor, option, value)]
        elif len(sensors) == 1:
            items = [(sensors[0], key, value)]
        else:
            raise ConfigError(
                f"modality option {key!r} does not say which sensor of {'+'.join(sensors)} it is of; write for example "
                f"{sensors[-1]}.{key}={value}"
            )
        for name, own, item in items:
            if name not in sensors and not with_others:
                hint = did_you_mean(name, sensors, otherwise="")
                raise ConfigError(
                    f"modality option of {name!r}: the sensors are {', '.join(sensors)}{hint}"
                )
            if own in found.setdefault(name, {}):
                raise ConfigError(
                    f"modality option {own!r} of {name!r} is given twice; give it once"
                )
            found[name][own] = item
    return found


def describe_options(
    model: type[ModalityOptions],
) -> tuple[tuple[str, str, str, str], ...]:
    """Return (name, allowed values, default, description) of each option, those that every sensor has last."""
    rows = []
    for name in sorted(
        model.model_fields, key=lambda name: name in ModalityOptions.model_fields
    ):
        field = model.model_fields[name]
        allowed = allowed_values(model, name).replace("'", "")
        rows.append((name, allowed, _as_text(field.default), field.description or ""))
    return tuple(rows)


def format_options(options: Mapping[str, Any]) -> str:
    """Return options as `--modality-option` takes them: "unit=cK, filter=lee"."""
    return ", ".join(f"{name}={_as_text(value)}" for name, value in options.items())


def _as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def modality_parts(text: str) -> tuple[str, ...]:
    """Split a modality such as "rgb+./sonar.toml" into names of sensors and paths of `sensor.toml` files.

    A "+" in the folders of a path does not split it. An empty part stays, for the caller to refuse.
    """
    if is_sensor_file(text) and Path(text).is_file():
        return (text,)
    parts: list[str] = []
    for piece in text.split("+"):
        if (
            parts
            and ("/" in parts[-1] or "\\" in parts[-1])
            and not is_sensor_file(parts[-1])
        ):
            # "/data/c" is the start of a path: "/data/c++/sonar.toml"
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return tuple(part.strip() for part in parts)


def is_sensor_file(part: str) -> bool:
    """Return whether a part of a modality is the path of a `sensor.toml`, not a name."""
    return part.lower().endswith(".toml")


def with_absolute_files(text: str, folder: Path | None = None) -> str:
    """Return a modality with absolute paths; relative ones start at `folder` (default: the current one)."""
    parts = modality_parts(text)
    if not any(is_sensor_file(part) for part in parts):
        return text
    base = (folder or Path()).absolute()
    return "+".join(
        str(base / with_home(part)) if is_sensor_file(part) else part for part in parts
    )


def format_nodata(nodata: float | Mapping[str, float]) -> str:
    """Return the text that `--nodata` takes; reading it gives the same numbers."""
    if isinstance(nodata, Mapping):
        return ",".join(
            f"{source}={format_nodata(value)}" for source, value in nodata.items()
        )
    return repr(float(nodata)).removesuffix(".0")

"""Read a `sensor.toml`, and say everything that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from simmat.declared.adapter import DeclaredModality
from simmat.declared.schema import (
    FORMAT,
    NAME,
    ChannelDefaults,
    ChannelRule,
    Decibel,
    Declaration,
    FixedRange,
    Log,
    Percentile,
    SourceRule,
    ZScore,
)
from simmat.errors import ConfigError, all_problems, nearest
from simmat.toml_files import follows, message_of, read_toml

_KINDS: Mapping[str, type[BaseModel]] = {
    "z-score": ZScore,
    "percentile": Percentile,
    "range": FixedRange,
    "log": Log,
    "db": Decibel,
}
_TABLES: Mapping[str, type[BaseModel]] = {"source": SourceRule, "channel": ChannelRule, "defaults": ChannelDefaults}


def read_sensor(path: Path | str) -> DeclaredModality:
    """Read the sensor that a file describes.

    Raises:
        ConfigError: the file cannot be read, or everything in it that is unknown, missing or out of range.
    """
    file = Path(path)
    values = read_toml(file, "sensor file", hint="" if file.exists() else _hint(file))
    return DeclaredModality(parse_declaration(values, str(file)))


def _hint(missing: Path) -> str:
    beside = sorted(other.name for other in missing.parent.glob("*.toml")) if missing.parent.is_dir() else []
    guess = nearest(missing.name, beside)
    return f"did you mean {missing.with_name(guess)}?" if guess else "docs/sensor-toml.md shows how to write one"


def parse_declaration(values: Mapping[str, Any], where: str) -> Declaration:
    """Turn plain values into a declaration.

    Args:
        values: what the file says, or what `Declaration.model_dump` gave.
        where: the file, for messages.

    Raises:
        ConfigError: all that is wrong, in one message.
    """
    given = dict(values)
    defaults = given.pop("defaults", {})
    problems = list(_format_problems(given)) or [*_problems_of(ChannelDefaults, defaults, ("defaults",))]
    declaration = None
    if not problems:
        filled = _filled(given, defaults)
        try:
            declaration = Declaration.model_validate(filled)
        except ValidationError as error:
            problems = [_in_words(detail, given) for detail in error.errors() if not follows(detail)]
        else:
            problems = list(declaration.problems())
    if declaration is None or problems:
        raise ConfigError(
            f"{where}: {problems[0]}"
            if len(problems) == 1
            else all_problems(f"{where}: {len(problems)} problems:", problems, most=len(problems))
        )
    return declaration


def _format_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """A file of another format is told by that alone; what else it says may mean something else."""
    found = values.get("format")
    if found is None:
        yield f"format is missing; write format = {FORMAT} in the first line"
    elif found is True or found != FORMAT:
        yield f"format must be {FORMAT}, got {found!r}; a newer SimMAT may read it"


def _filled(values: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Give every channel the defaults, and the only source the sensor's name."""
    filled = dict(values)
    channels, sources = values.get("channel"), values.get("source")
    if isinstance(channels, list | tuple):
        filled["channel"] = [{**defaults, **c} if isinstance(c, Mapping) else c for c in channels]
    if isinstance(sources, list | tuple) and len(sources) == 1 and isinstance(sources[0], Mapping):
        name = values.get("name")
        valid = isinstance(name, str) and re.fullmatch(NAME, name)  # a wrong one is told once, of the sensor
        filled["source"] = [{"name": name if valid else "sensor", **sources[0]}]
    return filled


def _problems_of(model: type[BaseModel], values: Any, start: tuple[str, ...]) -> Iterator[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        for detail in error.errors():
            yield _in_words({**detail, "loc": (*start, *detail["loc"])}, {start[0]: values})


def _in_words(detail: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Say one pydantic error as: where, what is allowed, what was got."""
    place, keys = _place(detail["loc"], values)
    key, kind, message = ".".join(keys), detail["type"], message_of(detail)
    if kind == "extra_forbidden":
        return place + _unknown_key(keys, detail["loc"])
    if detail["loc"] in (("source",), ("channel",)) and kind in ("missing", "too_short"):
        return f"there is no [[{key}]]; at least one is needed"
    if kind in ("missing", "too_long") and key == "valid_range":
        return f"{place}{key} must be two numbers, [low, high], got {_plain(detail['input'])!r}"
    if kind == "missing":
        return f"{place}{key} is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        got = detail["input"].get("kind") if isinstance(detail["input"], Mapping) else detail["input"]
        return f"{place}{key}.kind must be one of {', '.join(_KINDS)}, got {got!r}"
    if kind == "string_pattern_mismatch":
        allowed = "lower case letters, digits and single hyphens"
        message = f"must be {'a text without spaces, commas, + and dots' if 'channel' in detail['loc'] else allowed}"
    if kind == "tuple_type" and key in ("source", "channel"):
        return f"{key} must be a table, written [[{key}]], got {detail['input']!r}"
    if kind == "model_type" and not keys:
        return f"{place.removesuffix(': ')} must be a table, got {detail['input']!r}"
    if kind in ("model_attributes_type", "dict_type"):
        message = "must be a table"
    if kind in ("too_short", "string_too_short"):
        message = "must not be empty"
    return f"{place}{key} {message}, got {_plain(detail['input'])!r}"


def _place(loc: Sequence[Any], values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return "channel 2 ('nir'): " and the keys below it, without the tags pydantic puts between."""
    table, rest, place = str(loc[0]), list(loc[1:]), ""
    if table in ("source", "channel") and rest and isinstance(rest[0], int):
        number = rest.pop(0)
        entry = values[table][number]
        name = entry.get("name") if isinstance(entry, Mapping) else None
        place = f"{table} {number + 1}" + (f" ({name!r}): " if isinstance(name, str) else ": ")
    elif table == "defaults":
        place = "defaults: "
    else:
        rest = [table, *rest]
    return place, [str(key) for key in rest if key not in _KINDS and not isinstance(key, int)]


def _unknown_key(keys: Sequence[str], loc: Sequence[Any]) -> str:
    """Name the nearest key of the table that does not know this one."""
    tag = next((key for key in loc if key in _KINDS), None)
    model = _KINDS[tag] if tag is not None else _TABLES.get(str(loc[0]), Declaration) if len(loc) > 1 else Declaration
    known = [*model.model_fields, *(["defaults"] if model is Declaration else [])]
    guess = nearest(keys[-1], known)
    return f"no key {'.'.join(keys)!r}; " + (f"did you mean {guess!r}? " if guess else "") + f"Keys: {', '.join(known)}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

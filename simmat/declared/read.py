"""Read a `sensor.toml`, and say everything that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simmat.declared.adapter import DeclaredModality
from simmat.declared.schema import FORMAT, NAME, Declaration, Defaults
from simmat.documents import parse
from simmat.errors import ConfigError, nearest
from simmat.toml_files import read_toml


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
    _check_format(values.get("format"), where)
    given = dict(values)
    defaults = given.pop("defaults", {})
    parse(Defaults, {"defaults": defaults}, where)
    return parse(Declaration, _filled(given, defaults), where)


def _check_format(found: object, where: str) -> None:
    """Refuse a file of another format by that alone; what else it says may mean something else."""
    if found is None:
        raise ConfigError(f"{where}: format is missing; write format = {FORMAT} in the first line")
    if found is True or found != FORMAT:
        raise ConfigError(f"{where}: format must be {FORMAT}, got {found!r}; a newer SimMAT may read it")


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

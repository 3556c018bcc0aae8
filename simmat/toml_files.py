"""Files that people write: TOML read from disk, and what a pydantic model says of it in plain words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError

_MOST_BYTES = 2**24
"""What no person writes; a device such as /dev/zero has no end."""


def read_toml(path: Path, kind: str, *, hint: str = "") -> dict[str, Any]:
    """Read a TOML file; UTF-8 with or without a byte order mark.

    Args:
        path: the file.
        kind: what it is, for messages ("config file").
        hint: what to do where there is no such file.

    Raises:
        ConfigError: it is not there, cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{path} is no {kind}: it is larger than {_MOST_BYTES >> 20} MiB; give another file")
        return tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"no {kind} {path}" + (f"; {hint}" if hint else "")) from error
    except OSError as error:
        raise ConfigError(f"cannot read {kind} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def follows(detail: Mapping[str, Any]) -> bool:
    """True for "too short" of a list that has entries: pydantic says it where all of them are wrong."""
    return detail["type"] == "too_short" and bool(detail["input"])


def message_of(detail: Mapping[str, Any]) -> str:
    """Return what one pydantic error demands: "must be greater than 0"."""
    return str(detail["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)

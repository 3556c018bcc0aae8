"""Files that people write: TOML read from disk."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError
from simmat.io.files import read_bytes

_MOST_BYTES = 2**24
"""What no person writes."""


def read_toml(path: Path, kind: str, *, hint: str = "") -> dict[str, Any]:
    """Read a TOML file; UTF-8 with or without a byte order mark.

    Args:
        path: the file.
        kind: what it is, for messages ("config file").
        hint: what to do where there is no such file.

    Raises:
        ConfigError: it is not there, is no regular file, cannot be read, or is no TOML.
    """
    with suppress(OSError):  # what the system refuses, the reader says
        if not path.exists():
            raise ConfigError(f"no {kind} {path}" + (f"; {hint}" if hint else ""))
    content = read_bytes(path, kind, limit=_MOST_BYTES, error=ConfigError)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error

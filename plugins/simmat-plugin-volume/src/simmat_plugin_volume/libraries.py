"""Import the library of a format when a file of it is opened."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from simmat.errors import ConfigError


def library(module: str, extra: str) -> Any:
    """Return a module; ConfigError where it is not installed says which extra of this package brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{extra} files need {module}: pip install simmat-plugin-volume[{extra}] ({error})"
        ) from error

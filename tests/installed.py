"""What a test needs beyond the core: it is skipped, and says why, where that is not installed."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

SHARED_DATA = Path(
    os.environ.get("SIMMAT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")
)
"""Recordings of real sensors, the only files outside of the checkout that a test reads."""
needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(),
    reason=f"no sensor data at {SHARED_DATA}; set SIMMAT_SHARED_DATA",
)


def is_installed(package: str) -> bool:
    """Say whether a package is installed, by the name of its distribution."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def need_plugins(*names: str) -> None:
    """Skip the test that asks where a plugin of ours is not installed.

    Args:
        names: of plugins as in `simmat-plugin-NAME`.
    """
    missing = [
        name
        for name in (f"simmat-plugin-{short}" for short in names)
        if not is_installed(name)
    ]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")

"""What a test needs beyond the core: it is skipped, and says why, where that is not installed."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

SHARED_DATA = Path(os.environ.get("SIMMAT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Recordings of real sensors, the only files outside of the checkout that a test reads."""
needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason=f"no sensor data at {SHARED_DATA}; set SIMMAT_SHARED_DATA"
)


def need_plugins(*names: str) -> None:
    """Skip the test that asks where a plugin of ours is not installed.

    Args:
        names: of plugins as in `simmat-plugin-NAME`.
    """
    missing = [f"simmat-plugin-{name}" for name in names if find_spec(f"simmat_plugin_{name}") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")

"""What a test needs beyond the core: it is skipped, and says why, where that is not installed."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def need_plugins(*names: str) -> None:
    """Skip the test that asks where a plugin of ours is not installed.

    Args:
        names: of plugins as in `simmat-plugin-NAME`.
    """
    missing = [f"simmat-plugin-{name}" for name in names if find_spec(f"simmat_plugin_{name}") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")

"""Settings of the tests of exports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # mock_page.py

from mock_page import built_page, chromium, need_browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A browser, and the built page."""
    need_browser()
    page = built_page(tmp_path_factory.mktemp("page"))
    with chromium() as browser:
        yield browser, page

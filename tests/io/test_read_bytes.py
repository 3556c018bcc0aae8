"""The guard through which files of strangers are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.errors import DataError
from simmat.io.reading import read_bytes


def test_a_file_that_states_no_size_is_read_whole() -> None:
    """Files of /proc say that they have 0 bytes."""
    path = Path("/proc/self/status")
    if not path.is_file():
        pytest.skip("no /proc here")
    assert read_bytes(path).startswith(b"Name:")
    assert b"\nVmSize" in read_bytes(path)


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    """The limit holds to the byte."""
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    assert len(read_bytes(path, limit=10)) == 10
    with pytest.raises(DataError, match="larger than"):
        read_bytes(path, limit=9)

"""Files that people write are read in one way, whatever they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.errors import ConfigError
from simmat.toml_files import read_toml


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    """Editors of one system write it, unseen."""
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_toml(tmp_path / "a.toml", "config file") == {"x": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no config file {path}; see the docs"),
        (b"x = ", "{path} is not valid TOML: "),
        (b"x = " + b"9" * 5000, "{path} is not valid TOML: "),
        (b"x = " + b"[" * 3000, "{path} is not valid TOML: "),
        (b"x = '\xff'", "{path} is not UTF-8 text at byte 5; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes | None, said: str) -> None:
    """A traceback of a parser says neither which file nor what to do."""
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path, "config file", hint="see the docs")
    assert str(caught.value).startswith(said.format(path=path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A slash too many is easily typed."""
    with pytest.raises(ConfigError, match=r"cannot read config file .*: Is a directory"):
        read_toml(tmp_path, "config file")


def test_a_device_without_an_end_is_refused() -> None:
    """Reading all of it would take all memory."""
    with pytest.raises(ConfigError, match=r"/dev/zero is no config file: it is larger than 16 MiB"):
        read_toml(Path("/dev/zero"), "config file")

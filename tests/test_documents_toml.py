"""Files that people write are read in one way, whatever they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.documents import read_toml
from simmat.errors import ConfigError


def test_a_byte_order_mark_is_not_a_part_of_the_file(tmp_path: Path) -> None:
    """Editors of one system write it, unseen."""
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_toml(tmp_path / "a.toml", "config file") == {"x": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "{path}; see the docs"),
        (b"x = ", "{path} is not valid TOML"),
        (b"x = " + b"9" * 5000, "{path} is not valid TOML"),
        (b"x = " + b"[" * 3000, "{path} is not valid TOML"),
        (b"x = '\xff'", "{path} is not UTF-8 text at byte 5"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_by_name(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    """A traceback of a parser says neither which file nor what to do."""
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path, "config file", hint="see the docs")
    assert said.format(path=path) in str(caught.value)


def test_a_file_that_no_person_wrote_is_refused(tmp_path: Path) -> None:
    """Parsing it would take minutes and all memory."""
    with (tmp_path / "a.toml").open("wb") as stream:
        stream.truncate(2**24 + 1)
    with pytest.raises(ConfigError, match=r"a\.toml: .*16 MiB.*config file"):
        read_toml(tmp_path / "a.toml", "config file")

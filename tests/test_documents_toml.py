"""Files that people write are read in one way, whatever they are for."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import need_plugins
from runs import gray_set

from simmat.cli import run
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


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    """A slash too many is easily typed."""
    with pytest.raises(ConfigError, match=rf"{tmp_path}: a folder.*config file"):
        read_toml(tmp_path, "config file")


def test_a_file_that_no_person_wrote_is_refused(tmp_path: Path) -> None:
    """Parsing it would take minutes and all memory."""
    with (tmp_path / "a.toml").open("wb") as stream:
        stream.truncate(2**24 + 1)
    with pytest.raises(ConfigError, match=r"a\.toml: .*16 MiB.*config file"):
        read_toml(tmp_path / "a.toml", "config file")


def test_a_device_without_an_end_is_refused() -> None:
    """Reading all of it would take all memory."""
    with pytest.raises(ConfigError, match=r"/dev/zero: .*device.*config file"):
        read_toml(Path("/dev/zero"), "config file")


@pytest.fixture
def in_time() -> Iterator[None]:
    """Ends a test that waits for a writer who never comes."""

    def give_up(*args: object) -> None:
        raise TimeoutError("opened a FIFO")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(
    "command",
    [
        "train --config x.toml",
        "modalities show ./x.toml",
        "data check set --modality gray",
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_a_command_waits_for_no_pipe(
    command: str,
    linked: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A FIFO in an archive would hold a service for ever."""
    if command.startswith("data"):
        need_plugins("report")
    monkeypatch.chdir(tmp_path)
    gray_set(tmp_path / "set")
    (tmp_path / "set/card.toml").unlink(missing_ok=True)
    os.mkfifo("pipe")
    for name in ("x.toml", "set/card.toml"):
        if linked:
            Path(name).symlink_to(tmp_path / "pipe")
        else:
            os.mkfifo(name)
    assert run(command.split()) == 2
    assert re.search(r"\.toml: .*pipe", capsys.readouterr().err)

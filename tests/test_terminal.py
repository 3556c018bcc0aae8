"""Nothing that a stranger named or wrote steers the terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from installed import need_plugins
from tqdm import tqdm

from simmat.cli import run
from simmat.terminal import EscapingStream, escape

HOSTILE = "a\x1b[2Jb\r\x07\x9b1m\x7f\u202e\u2066\u2028\u200b\udc80c"
SHOWN = r"a\x1b[2Jb\r\x07\x9b1m\x7f\u202e\u2066\u2028\u200b\udc80c"
STEERING = set(HOSTILE) - set("abc[2J1m")


def test_every_character_that_steers_is_shown_and_the_layout_stays() -> None:
    """A reader must see that something odd stands there; removing it would hide an attack, or join two names."""
    assert (
        escape(f"{HOSTILE}\n\tä€ \U0001f469\u200d\U0001f52c")
        == f"{SHOWN}\n\tä€ \U0001f469\u200d\U0001f52c"
    )
    assert escape("a\nb\tc", keep="") == r"a\nb\tc"
    assert escape("\U000e0041") == r"\U000e0041"


@pytest.mark.parametrize(
    "command",
    [
        "bundle show NAME",
        "data check NAME --modality gray --regions instances",
        "predict NAME NAME --point 1,1 --out OUT",
        "train --config NAME",
        "modalities show ./NAME",
        "NAME",
    ],
)
def test_a_hostile_name_is_answered_readably(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """File names come with downloaded data; an error that clears the screen, or turns itself around, hides itself."""
    if command.startswith("bundle"):
        need_plugins("hub")
    if command.startswith("data"):
        need_plugins("report")
    monkeypatch.chdir(tmp_path)
    assert run([word.replace("NAME", HOSTILE) for word in command.split()]) == 2
    captured = capsys.readouterr()
    assert not STEERING & set(captured.out + captured.err)
    assert r"\x1b[2J" in captured.err


CHATTY = """
import click, logging, sys, warnings
import simmat.cli
hostile = HOSTILE

@click.command()
def command():
    print(hostile)
    click.echo(hostile, color=True)
    sys.stderr.write(hostile)
    logging.getLogger("a.library").warning("%s", hostile)
    warnings.warn(hostile)
    raise ValueError(hostile)

simmat.cli.import_module = lambda name: type("Module", (), {"command": command})
before = sys.stdout, sys.stderr
code = simmat.cli.run(["train"])
assert (sys.stdout, sys.stderr) == before
sys.exit(code)
"""


def test_what_libraries_and_plugins_print_is_escaped_too() -> None:
    """They name the files they stumble over, and know nothing of our rule."""
    command = [sys.executable, "-c", CHATTY.replace("HOSTILE", ascii(HOSTILE))]
    environment = {**os.environ, "SIMMAT_DEBUG": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, capture_output=True, env=environment, timeout=60, check=False
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 1
    assert out == f"{SHOWN}\n{SHOWN}\n"
    assert not STEERING & set(err)
    # written, logged, warned of, in the traceback, in the message
    assert err.count(SHOWN) >= 5


class Terminal(io.StringIO):
    """A terminal, as far as a progress bar asks."""

    def isatty(self) -> bool:
        return True


def drawn(file: Any, label: str) -> None:
    with tqdm(
        total=2,
        desc=label,
        file=file,
        ncols=60,
        mininterval=0,
        bar_format="{desc}: {n}",
    ) as outer:
        with tqdm(
            total=1,
            desc="inner",
            file=file,
            ncols=60,
            mininterval=0,
            bar_format="{desc}: {n}",
        ) as inner:
            inner.update(1)
        outer.update(2)


def test_progress_bars_are_drawn_as_without_and_only_their_labels_are_escaped() -> None:
    """A bar goes back to the start of its line, and up over the bars below; escaped, it would fill the screen."""
    plain, guarded, hostile = Terminal(), Terminal(), Terminal()
    drawn(plain, "reading")
    drawn(EscapingStream(guarded), "reading")
    assert guarded.getvalue() == plain.getvalue()
    assert "\r" in plain.getvalue()
    assert "\x1b[A" in plain.getvalue()
    drawn(EscapingStream(hostile), HOSTILE)
    assert SHOWN in hostile.getvalue()
    assert not (STEERING - {"\r", "\x1b"}) & set(hostile.getvalue())
    assert "\x1b[2J" not in hostile.getvalue()

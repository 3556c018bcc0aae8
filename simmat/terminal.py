"""Print on a terminal: control characters are escaped, progress is shown, and a step that takes long is named.

File names, bundles, plugins and data sets may come from strangers. A character that moves the cursor, changes colours
or reverses the direction of writing could hide or forge a message.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from tqdm import tqdm

LAYOUT = "\n\t"
"""Control characters that our own text uses."""
_JOINERS = "\u200c\u200d"
"""Harmless format characters, which Persian, Indic scripts and emoji need."""
_CONTROLLING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format (bidirectional overrides), surrogate, line and paragraph separator."""
_CURSOR_UP = re.compile(r"(\x1b\[A)+")
"""A whole write of a progress bar below another one."""


def escape(text: str, *, keep: str = LAYOUT) -> str:
    r"""Return text with each character that controls a terminal as its escape, such as \x1b or \u202e.

    Args:
        text: any text; a byte of a file name that is not UTF-8, a lone surrogate in Python, becomes \udcXX.
        keep: characters that are not escaped.
    """
    return _replace(
        text, keep, lambda char: char.encode("unicode_escape").decode("ascii")
    )


def escape_json(text: str) -> str:
    r"""Return json text with each such character as \uXXXX, which is the same json value."""
    return _replace(text, LAYOUT, _json_escape)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print an escaped text and a line feed on standard output or standard error."""
    print(escape(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


LINE_SECONDS = 10.0
"""Seconds between the lines of progress where standard error is not a terminal."""
SLOW_S = 15.0
"""Seconds after which `warn_if_slow` speaks."""
TICK_S = 1.0
_waiting: dict[object, tuple[float, str]] = {}
"""The texts that `warn_if_slow` will print, each with its time."""
_watcher = threading.Thread()
"""The thread that prints them, one per process: starting one for each small file would take a tenth of its reading
time."""


@contextmanager
def warn_if_slow(text: str) -> Iterator[None]:
    """Print a text on standard error, once, if the body has not ended after `SLOW_S` seconds."""
    global _watcher
    # the first call in this process; a fork has no threads of its parent
    if not _watcher.is_alive():
        _waiting.clear()
        _watcher = threading.Thread(target=_watch, daemon=True)
        _watcher.start()
    key = object()
    _waiting[key] = time.monotonic() + SLOW_S, text
    try:
        yield
    finally:
        _waiting.pop(key, None)


def _watch() -> None:
    while True:
        time.sleep(TICK_S)
        now = time.monotonic()
        for key, (due, text) in list(_waiting.items()):
            if now >= due and key in _waiting:
                _waiting.pop(key, None)
                echo(text, err=True)


class EscapingStream:
    """A text stream that escapes what is written to it.

    Progress bars of tqdm still work: a carriage return at the start of a write and a write of only cursor-up sequences
    are not escaped. There is no `buffer`, which would take bytes without escaping them.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, escaped; return its length."""
        if not isinstance(text, str):
            raise TypeError(f"a text stream takes str, got {type(text).__name__}")
        if _CURSOR_UP.fullmatch(text):
            self._stream.write(text)
        else:
            body = text.removeprefix("\r")
            self._stream.write(text[: len(text) - len(body)] + escape(body))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, escaped."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach"):
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Escape all writes to standard output and standard error: of warnings, logging, plugins, libraries."""
    before = sys.stdout, sys.stderr
    ours = sys.stdout, sys.stderr = _escaping(sys.stdout), _escaping(sys.stderr)
    try:
        yield
    finally:
        # After a broken pipe, click has put a silent stream there; it stays.
        if sys.stdout is ours[0]:
            sys.stdout = before[0]
        if sys.stderr is ours[1]:
            sys.stderr = before[1]


def _escaping(stream: TextIO) -> TextIO:
    if stream is None or isinstance(stream, EscapingStream):
        return stream
    return cast(TextIO, EscapingStream(stream))


@contextmanager
def progress_bar(
    label: str,
    unit: str,
    *,
    total: int | None = None,
    shown: bool = True,
    unit_scale: bool = False,
) -> Iterator[tqdm[Any]]:
    """Show progress on standard error: a bar on a terminal, cleared at the end; else a line every `LINE_SECONDS`.

    Args:
        label: name of the work.
        unit: name of a unit.
        total: number of units; None if it is not known yet.
        shown: False shows nothing.
        unit_scale: write large numbers with a prefix, such as 1.5M.
    """
    from tqdm import tqdm

    drawn: dict[str, Any]
    if sys.stderr.isatty():
        # some containers report a size of 0, and tqdm would draw nothing
        drawn = {"ncols": 80, "nrows": 24}
    else:
        form = "{desc}: {n_fmt} of {total_fmt}, {remaining} left"
        drawn = {
            "file": _Lines(),
            "bar_format": form,
            "ncols": 10_000,
            "delay": LINE_SECONDS,
        }
        drawn |= {"mininterval": LINE_SECONDS, "miniters": 1}
    drawn |= {
        "unit": unit,
        "unit_scale": unit_scale,
        "leave": False,
        "disable": not shown,
    }
    with tqdm(total=total, desc=escape(label), **drawn) as bar:
        yield bar


class _Lines:
    """A stream for tqdm that prints each state of a bar as a line."""

    def write(self, text: str) -> None:
        state = text.replace("\x1b[A", "").strip()
        if state:  # of a bar below another one
            echo(state, err=True)

    def flush(self) -> None:
        pass


def move_bar(bar: tqdm[Any], done: int, total: int) -> None:
    """Set a progress bar to `done` of `total` steps."""
    bar.total = total or None
    bar.update(done - bar.n)


def _replace(text: str, keep: str, escaped: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    kept = keep + _JOINERS
    table = {}
    for character in set(text).difference(kept):
        if unicodedata.category(character) in _CONTROLLING:
            table[ord(character)] = escaped(character)
    return text.translate(table)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(
        f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)
    )

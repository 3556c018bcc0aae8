"""The progress bar of commands: on standard error, and only where somebody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from simmat.terminal import escape

if TYPE_CHECKING:
    from tqdm import tqdm

_SIZE = (80, 24)
"""Columns and lines of a terminal that does not know its own."""


@contextmanager
def progress_bar(label: str, unit: str, *, total: int | None = None, shown: bool = True) -> Iterator[tqdm[Any]]:
    """Give a bar that is cleared at the end; where standard error is no terminal it draws nothing, to fill no log.

    Args:
        label: what is being done.
        unit: one of what is counted.
        total: how many; None where that is found out later.
        shown: False draws nothing anywhere, as in all processes but the first.
    """
    from tqdm import tqdm

    disable = None if shown else True  # None asks whether it is a terminal
    columns, lines = _size()
    with tqdm(
        total=total, desc=escape(label), unit=unit, leave=False, disable=disable, ncols=columns, nrows=lines
    ) as bar:
        yield bar


def _size() -> tuple[int, int] | tuple[None, None]:
    """Return the size of a terminal that states 0, as that of a container may: tqdm would draw nothing on it.

    None leaves the size to tqdm.
    """
    try:
        stated = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return None, None
    return (None, None) if all(stated) else _SIZE

"""What the plugin's own commands share: option types, and errors in one line with exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from simmat.errors import SimMATError


def run_command(work: Callable[[], None]) -> None:
    """Do the work of a command; what can be put right ends in one line and exit code 2, not in a traceback."""
    try:
        work()
    except (SimMATError, OSError, ValueError, ImportError, ArithmeticError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def whole_number(text: str) -> int:
    """Read an option that counts something: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def fraction(text: str) -> float:
    """Read an option that is a part of all: 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value

"""How a case ended."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "value", "refused", "wrong value", "exception", "memory", "time", "crash", "leftovers", "code run", "test"
]
"""The first two are allowed: a value that holds what it promises, and a SimMATError. "test" is a fault of the test."""

ALLOWED: tuple[Kind, ...] = ("value", "refused")


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        number: of the case.
        kind: see `Kind`.
        what: one line: the class of an exception and the place in SimMAT where it arose, or what was left.
        text: of the exception.
    """

    number: int
    kind: Kind
    what: str = ""
    text: str = ""

    @property
    def failed(self) -> bool:
        """True where it ended in another way than allowed."""
        return self.kind not in ALLOWED

    def __str__(self) -> str:
        text = " ".join(self.text.split())
        return f"{self.kind}: {self.what}" + (f": {text:.200}" if text else "")


def place_of(error: BaseException) -> str:
    """Return the class of an exception and the last place in SimMAT that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/simmat" in frame.filename and "/tests/" not in frame.filename]
    last = (own or frames)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} in {last.name}"

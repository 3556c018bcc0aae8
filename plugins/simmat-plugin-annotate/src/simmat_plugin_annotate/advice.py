"""Advice of SimMAT's messages, in the words of the page where it has the setting."""

from __future__ import annotations

import re

_LABELS = {"--image-size": "Image size (in Train)", "--steps": "Steps (in Train)"}
"""Option of the command line -> its name in the page."""
_OPTION = re.compile(r"--[a-z][a-z-]*")
_ELSEWHERE = (
    "What begins with -- is an option of the command line, `simmat annotate` or `simmat train`, not of this page."
)


def for_page(message: str) -> str:
    """Return a message with the page's names for options, and a sentence about those that the page does not have."""
    text = _OPTION.sub(lambda found: _LABELS.get(found[0], found[0]), message)
    return f"{text}. {_ELSEWHERE}" if _OPTION.search(text) else text

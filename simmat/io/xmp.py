"""Read the XMP tags of an image file: what cameras write about themselves, such as the name of a band."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

_LISTS = ("Seq", "Bag", "Alt", "li", "text")
"""Names within a tag that are not its own."""


def read_xmp(path: Path) -> dict[str, str]:
    """Return name -> text of the XMP tags of a file, without their namespaces; of a list, its texts joined by commas.

    It is empty if the file has none, or Pillow cannot read them.
    """
    try:
        with Image.open(path) as image:
            if not hasattr(image, "getxmp"):
                return {}
            return dict(_texts("", image.getxmp()))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return {}


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts in nested values by the name of their tag."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            own = name if key in _LISTS else key
            yield from _texts(own, inner)
    elif isinstance(value, list) and all(isinstance(one, str) for one in value):
        yield name, ",".join(value)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(name, inner)

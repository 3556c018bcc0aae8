"""A bundle's json knows its own sha256, so that a value that was changed on the way is noticed.

It guards against damage and slips of an editor. It is no signature: whoever writes a bundle can write its digest, too,
so it says nothing of who made the bundle or whether to trust it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sha256"
"""Field of the digest in the json."""


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's json with its digest as the last field; one that it has already is replaced."""
    plain = {key: value for key, value in json.loads(json.dumps(document)).items() if key != KEY}
    return {**plain, KEY: _digest(plain)}


def check_seal(document: Mapping[str, Any]) -> None:
    """Check that a bundle's json, as it was read, is what its digest says.

    Raises:
        ValueError: it has no digest, or its content is another.
    """
    if KEY not in document:
        raise ValueError(f"it has no {KEY} of its own content, as bundles of unreleased versions of SimMAT")
    if document[KEY] != _digest({key: value for key, value in document.items() if key != KEY}):
        raise ValueError(f"a value in it was changed: the {KEY} of its content is not the one it states")


def _digest(plain: Mapping[str, Any]) -> str:
    """Return the sha256 of json values in their canonical form: keys sorted, ASCII, no spaces."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()

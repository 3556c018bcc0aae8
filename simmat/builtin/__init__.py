"""SimMAT's own parts, registered through the same hooks as anybody's."""

from __future__ import annotations

from collections.abc import Mapping

PARTS: Mapping[str, str] = {
    "sensors": "simmat.builtin.sensors",
    "sam": "simmat.builtin.sam",
    "transfer": "simmat.builtin.transfer",
    "tuners": "simmat.builtin.tuners",
}
"""Name -> module with hooks; loaded by `simmat.plugins` as if each were a plugin of the package simmat."""

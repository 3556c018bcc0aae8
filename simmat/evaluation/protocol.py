"""Protocols: what is asked about each object, and where the answer is compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from simmat.errors import ConfigError, unknown_name

MOST_CLICKS = 20
"""Clicks after which NoC gives up, as the interactive benchmarks have it (Sofiiuk et al. 2021, arXiv 2102.06583)."""

BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"clicks": (1, 100), "draws": (1, 1000), "seed": (0, 2**63 - 1)}
)
"""Least and most of the numbers a user may give."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is asked, as data.

    Attributes:
        name: what `--protocol` takes.
        description: one line.
        first_click: "center" is the maximum of the region's distance transform, see
            `simmat.data.clicks.center_click`; "middle" the middle pixel of the region in raster order, in the input.
        grid: where masks are compared: "original", at the size of the image; "quarter", at a quarter of the
            network's input, into which the image is squashed.
        alternatives: whether the best-predicted and the best of a decoder's alternative masks count too.
        clicks: clicks an object; each after the first is put on the largest error.
        draws: random clicks and jittered boxes an object; 0 asks neither, nor with tight boxes.
        seed: decides the draws.
    """

    name: str
    description: str
    first_click: Literal["center", "middle"] = "center"
    grid: Literal["original", "quarter"] = "original"
    alternatives: bool = True
    clicks: int = 1
    draws: int = 0
    seed: int = 0


ONE_CLICK = Protocol("one-click", "one click an object at its centre, masks compared at the original size")
FULL = Protocol(
    "full",
    "one-click, then clicks on errors (k-click curve, NoC), boxes tight and jittered, and random clicks",
    clicks=MOST_CLICKS,
    draws=5,
)
COMPAT = Protocol(
    "simmat-compat",
    "as the paper's released code scores: middle pixel, image squashed, masks compared at a quarter of the input",
    first_click="middle",
    grid="quarter",
    alternatives=False,
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in (ONE_CLICK, FULL, COMPAT)})
"""By name; the first is the default."""


def find_protocol(
    name: str = ONE_CLICK.name, *, clicks: int | None = None, draws: int | None = None, seed: int | None = None
) -> Protocol:
    """Return the protocol of a name, with the numbers that are given in place of its own.

    Args:
        name: of `PROTOCOLS`.
        clicks: most clicks an object.
        draws: random clicks and jittered boxes an object.
        seed: decides the draws.

    Raises:
        UnknownNameError: there is no such protocol.
        ConfigError: a number is outside of `BOUNDS`, or one is given to a protocol that has none.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    given: dict[str, Any] = {
        key: value for key, value in (("clicks", clicks), ("draws", draws), ("seed", seed)) if value is not None
    }
    if given and name != FULL.name:
        options = ", ".join(f"--{key}" for key in given)
        raise ConfigError(f"protocol {name!r} takes no {options}; leave it out, or use --protocol {FULL.name}")
    for key, value in given.items():
        low, high = BOUNDS[key]
        if not low <= value <= high:
            raise ConfigError(f"--{key} must be from {low} to {high}, got {value}")
    return replace(PROTOCOLS[name], **given)

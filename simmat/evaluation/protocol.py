"""Protocols: which prompts are scored, and where masks are compared with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from simmat.errors import ConfigError, unknown_name

BOUNDS = {"clicks": (1, 100), "draws": (1, 1000), "seed": (0, 2**63 - 1)}
"""Smallest and largest of the numbers that a user may set."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol, as data.

    Attributes:
        name: what `--protocol` takes.
        first_click: "center", the maximum of the region's distance transform, see `simmat.data.clicks.center_click`,
            or "middle", the middle pixel of the region in raster order, in the network's input.
        grid: where masks are compared: "original", at the size of the image, or "quarter", at a quarter of the
            network's input, into which the image is squashed.
        alternatives: score the best-predicted and the best of a decoder's alternative masks too.
        clicks: clicks per object; each one after the first is placed on the largest error.
        draws: random clicks and jittered boxes per object; 0 leaves out tight boxes too.
        seed: seed of the draws.
    """

    name: str
    first_click: Literal["center", "middle"] = "center"
    grid: Literal["original", "quarter"] = "original"
    alternatives: bool = True
    clicks: int = 1
    draws: int = 0
    seed: int = 0


ONE_CLICK = Protocol("one-click")
"""One click per object at its centre, masks compared at the original size."""
FULL = Protocol("full", clicks=20, draws=5)
"""One click, then clicks on errors (mIoU by clicks, NoC), boxes tight and jittered, and random clicks.

NoC stops at 20 clicks, as the interactive benchmarks do (Sofiiuk et al. 2021, arXiv 2102.06583).
"""
COMPAT = Protocol("simmat-compat", first_click="middle", grid="quarter", alternatives=False)
"""The protocol of the paper's released code: middle pixel, squashed image, masks compared at a quarter of the input."""

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in (ONE_CLICK, FULL, COMPAT)})
"""By name; the first is the default."""


def find_protocol(
    name: str = ONE_CLICK.name, *, clicks: int | None = None, draws: int | None = None, seed: int | None = None
) -> Protocol:
    """Return a protocol by name, with its numbers replaced by those that are given; see `BOUNDS`."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    numbers = {"clicks": clicks, "draws": draws, "seed": seed}
    given: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    if given and name != FULL.name:
        options = ", ".join(f"--{key}" for key in given)
        raise ConfigError(f"protocol {name!r} takes no {options}; leave it out, or use --protocol {FULL.name}")
    for key, value in given.items():
        low, high = BOUNDS[key]
        if not low <= value <= high:
            raise ConfigError(f"--{key} must be from {low} to {high}, got {value}")
    return replace(PROTOCOLS[name], **given)

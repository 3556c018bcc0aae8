"""The figures of a scoring by name, as `score` of a bench asks for one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from simmat.errors import nearest

DEFAULT = "miou_object"
"""A figure of every protocol."""

_CLASS = r"iou_by_class\.-?\d+"
"""Which classes there are is known once there are scores."""


def figures_of(summary: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Go through the figures of a summary; those of a table within it as "by_size.small.miou_object"."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from figures_of(value, f"{before}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield before + name, float(value)


def unknown_figure(name: str, protocol: str) -> str:
    """Say that a protocol gives no figure of this name; "" where it gives one."""
    if name == DEFAULT:
        return ""
    # Loads torch, which a bench of the usual score need not wait for.
    from simmat.evaluation import find_protocol, possible_summary

    known = [figure for figure, _ in figures_of(possible_summary(find_protocol(protocol)))]
    if name in known or re.fullmatch(_CLASS, name):
        return ""
    return f"score = {name!r} is no figure of protocol {protocol!r}{hint(name, known)}"


def hint(name: str, known: Iterable[str]) -> str:
    """End a sentence on an unknown figure: with the nearest one, or with all there are."""
    names = list(known)
    guess = nearest(name, names)
    return f"; did you mean {guess!r}?" if guess else f". Figures: {', '.join(names)}"

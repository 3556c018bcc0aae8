"""The table of what a `sensor.toml` says of each channel, as `simmat modalities show` and `bundle show` print it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from simmat.cli.common import print_table
from simmat.types import RGB_QUANTITY

if TYPE_CHECKING:
    from simmat.declared import Declaration
    from simmat.declared.schema import ChannelRule

_FIXED = ("z-score", "range")
"""Normalizations that need no z-score after them."""


def print_declarations(declarations: Iterable[Declaration]) -> None:
    """Print one line for each channel: its file and plane, how values come of stored numbers, what the network gets."""
    rows = [_row(declaration, rule) for declaration in declarations for rule in declaration.channel]
    print_table(("DESCRIBED", "FILES", "PLANE (FROM 0)", "VALUE", "NODATA", "NORMALIZATION"), rows)


def _row(declaration: Declaration, rule: ChannelRule) -> tuple[str, ...]:
    source = next(source for source in declaration.source if source.name == declaration.source_of(rule))
    count = f" ({source.planes} planes)" if source.planes is not None else ""
    return (
        rule.name,
        " ".join(source.files) + count,
        "the only one" if rule.index is None else str(rule.index),
        _value(rule),
        ", ".join(f"{number:g}" for number in rule.nodata) or "-",
        _normalization(rule),
    )


def _value(rule: ChannelRule) -> str:
    """Return how a value in the channel's unit comes of the stored number."""
    text = "stored" if rule.scale == 1 else f"stored * {rule.scale:.9g}"
    if rule.offset:
        text += f" {'-' if rule.offset < 0 else '+'} {abs(rule.offset):.9g}"
    return text


def _normalization(rule: ChannelRule) -> str:
    """Return the rule as the file writes it, its options in brackets, and where its statistics are from."""
    if rule.quantity == RGB_QUANTITY:
        return "z-score by the foundation model's statistics"
    options = rule.normalize.model_dump(exclude={"kind"}, exclude_none=True)
    values = ", ".join(
        f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}" for key, value in options.items()
    )
    text = rule.normalize.kind + (f" ({values})" if values else "")
    if rule.normalize.kind not in _FIXED:
        return f"{text}, then z-score by the training split"
    return text if values else f"{text} by the training split"

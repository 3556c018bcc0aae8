"""Classes in words."""

from __future__ import annotations

from collections.abc import Mapping


def class_title(number: int, names: Mapping[int, str]) -> str:
    """Return a class with its name, where it has one: "3 (boat)", "3"."""
    return f"{number} ({names[number]})" if names.get(number) else str(number)

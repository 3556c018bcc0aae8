"""Damage to nested values, and such values as json and TOML; the writers write what a parser must refuse, too."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_DEEP, _DIGITS = "@deep", "@digits"
"""Texts that the writers replace by what no Python value can be written as: 100,000 brackets, 5,000 digits."""
_TEXTS = ("", " ", "x" * 5000, "\0", "\ud800", "é🎉\u202e", "../../etc/passwd", "/etc/passwd", "<script>", "\x1b[31m",
          "1")  # fmt: skip
_NUMBERS = (0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308)
_STRANGE = (None, True, False, float("nan"), float("inf"), float("-inf"), _DEEP, _DIGITS)
_NESTED: tuple[Any, ...] = ([], {}, [[[[]]]], [1, "a", None], {"kind": 1, "a": []}, {"name": "", "options": 3})
_KEYS = ("", "zzz", "é", "\0", "format", "kind", "name")

Path = tuple[Any, ...]


def strange(rng: random.Random) -> Any:
    """Return a value that hardly any reader expects."""
    values: tuple[Any, ...] = rng.choice((*[_NUMBERS] * 3, *[_TEXTS] * 2, *[_STRANGE] * 2, _NESTED))
    return copy.deepcopy(rng.choice(values))


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Return a copy of nested dicts and lists with 1 to 3 random changes."""
    if rng.random() < 0.02:
        return strange(rng)
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if places := [path for path in _paths(tree) if path]:
            path = rng.choice(places)
            _change(tree, _at(tree, path[:-1]), path[-1], rng)
    return tree


def _change(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    """Replace, remove, alter, wrap, double or move what a dict or list of the tree holds under a key."""
    value, kind = parent[key], rng.randrange(9)
    if kind < 3:
        parent[key] = strange(rng)
    elif kind == 3:
        del parent[key]
    elif kind < 6:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        near = (-value, value + 1, value * 10**6, str(value), [value], not value) if is_number else (strange(rng),)
        parent[key] = rng.choice(near)
    elif kind == 6:
        for _ in range(rng.choice((1, 3, 50, 100))):
            parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
    elif kind == 7 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif kind == 7:
        parent[rng.choice((*_KEYS, f"{key}x"))] = copy.deepcopy(value)
    else:
        parent[key] = copy.deepcopy(_at(tree, rng.choice(list(_paths(tree)))))


def to_json(tree: Any) -> bytes:
    """Write a tree as json; NaN and lone surrogates are written, too."""
    return _with_marks(json.dumps(tree)).encode()


def to_toml(tree: Any) -> bytes:
    """Write a tree as TOML: one key a line, inline tables below. What TOML has no form for is written all the same."""
    if not isinstance(tree, dict):
        return _with_marks(_toml_value(tree)).encode(errors="replace")
    lines = [f"{json.dumps(str(key))} = {_toml_value(value)}\n" for key, value in tree.items()]
    return _with_marks("".join(lines)).encode(errors="replace")


def _paths(tree: Any, start: Path = ()) -> Iterator[Path]:
    yield start
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in below:
        yield from _paths(value, (*start, key))


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with_marks(text: str) -> str:
    return text.replace(f'"{_DEEP}"', "[" * 100_000).replace(f'"{_DIGITS}"', "1" * 5000)


def _toml_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml_value(item)}" for key, item in value.items()) + "}"
    return str(value) if isinstance(value, int | float) else json.dumps(str(value))

"""Damage to nested values, and such values as json and TOML; the writers write what a parser must refuse, too."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

_DEEP, _DIGITS = "@deep", "@digits"
"""Texts that the writers replace by what no Python value can be written as: 100,000 brackets, 5,000 digits."""
_TEXTS = (
    "",
    " ",
    "x" * 5000,
    "\0",
    "\ud800",
    "é🎉\u202e",
    "../../etc/passwd",
    "/etc/passwd",
    "<script>",
    "\x1b[31m",
    "1",
)
_NUMBERS = (0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308)
_STRANGE = (None, True, False, float("nan"), float("inf"), float("-inf"), _DEEP, _DIGITS)
_KEYS = ("", "zzz", "é", "\0", "format", "kind", "name")

Path = tuple[Any, ...]


def strange(rng: random.Random) -> Any:
    """Return a value that hardly any reader expects."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(_NUMBERS)
    if kind < 5:
        return rng.choice(_TEXTS)
    if kind < 7:
        return rng.choice(_STRANGE)
    return copy.deepcopy(
        rng.choice(([], {}, [[[[]]]], [1, "a", None], {"kind": 1, "a": []}, {"name": "", "options": 3}))
    )


def mutate_tree(tree: Any, rng: random.Random, times: int | None = None) -> Any:
    """Return a copy of nested dicts and lists with 1 to 3 random changes, or with `times` of them."""
    if rng.random() < 0.02:
        return strange(rng)
    tree = copy.deepcopy(tree)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        places = [path for path in _paths(tree) if path]
        if not places:
            break
        path = rng.choice(places)
        rng.choice(_CHANGES)(tree, _at(tree, path[:-1]), path[-1], rng)
    return tree


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


def _replace(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    parent[key] = strange(rng)


def _remove(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    del parent[key]


def _alter(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    value = parent[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        parent[key] = strange(rng)
    else:
        parent[key] = rng.choice((-value, value + 1, value * 10**6, str(value), [value], not value))


def _wrap(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 50, 100))):
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}


def _double(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[rng.choice((*_KEYS, f"{key}x"))] = copy.deepcopy(parent[key])


def _move(tree: Any, parent: Any, key: Any, rng: random.Random) -> None:
    parent[key] = copy.deepcopy(_at(tree, rng.choice(list(_paths(tree)))))


_CHANGES = (_replace, _replace, _replace, _remove, _alter, _alter, _wrap, _double, _move)


def _with_marks(text: str) -> str:
    return text.replace(f'"{_DEEP}"', "[" * 100_000).replace(f'"{_DIGITS}"', "1" * 5000)


def _toml_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml_value(item)}" for key, item in value.items()) + "}"
    return str(value) if isinstance(value, int | float) else json.dumps(str(value))

"""Ways to damage a file: any bytes, nested values, and what readers trust in npy, safetensors, csv, zip and COCO json.

Each takes a source of random numbers. Those of hypothesis shrink to fewer and simpler changes.
"""

from __future__ import annotations

import ast
import copy
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CODE_RAN = "code-ran"
"""File in the working folder of a case; it is there where something of the file was run."""
CODE = f"touch {CODE_RAN}"
"""What a hostile file would do if a reader ran code from it."""
EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 257, 4095, 2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1,
         2**31, 2**32 - 1)  # fmt: skip
"""Numbers at which sizes, counts and offsets go wrong."""
_LARGE_EDGES = (2**40, 2**63 - 1, 2**63, 2**64 - 1)
_FLOATS = (float("nan"), float("inf"), float("-inf"), -0.0, 3e38)
_HEADER = 400
"""Half of the damage falls into so many first bytes: that is where a file says how large it is."""


def mutate_file(path: Path, rng: random.Random) -> bytes:
    """Return the content of a file, damaged in a way that suits its format."""
    from fuzz.damage_images import mutate_png, mutate_tiff

    by_ending = {
        ".png": mutate_png,
        ".tif": mutate_tiff,
        ".npy": mutate_npy,
        ".safetensors": mutate_safetensors,
    }
    return by_ending.get(path.suffix, mutate_bytes)(path.read_bytes(), rng)


def mutate_bytes(content: bytes, rng: random.Random, times: int | None = None) -> bytes:
    """Return bytes with 1 to 30 random changes, or with `times` of them."""
    data = bytearray(content)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 5, 10, 30))):
        if not data:
            break
        at = rng.randrange(min(len(data), _HEADER) if rng.random() < 0.5 else len(data))
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                layout = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
                width = struct.calcsize(layout)
                if len(data) >= width:
                    value = rng.choice(EDGES + _LARGE_EDGES) % (1 << 8 * width)
                    struct.pack_into(layout, data, min(at, len(data) - width), value)
            case 3:
                data[at : at + 4] = struct.pack("<f", rng.choice(_FLOATS))
            case 4:
                del data[at : rng.choice((at + 1, at + 4, at + 200, len(data)))]
            case 5:
                source = rng.randrange(len(data))
                data[at:at] = data[source : source + rng.choice((1, 4, 12, 300))]
            case _:
                data += bytes(rng.choice((1, 100, 10_000)))
    return bytes(data)


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
    "\x1b[31m",
    "1",
)
_NUMBERS = (0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308)
_STRANGE = (
    None,
    True,
    False,
    float("nan"),
    float("inf"),
    float("-inf"),
    _DEEP,
    _DIGITS,
)
_NESTED: tuple[Any, ...] = (
    [],
    {},
    [[[[]]]],
    [1, "a", None],
    {"kind": 1, "a": []},
    {"name": "", "options": 3},
)
_KEYS = ("", "zzz", "é", "\0", "format", "kind", "name")


def strange(rng: random.Random) -> Any:
    """Return a value that hardly any reader expects."""
    values: tuple[Any, ...] = rng.choice(
        (*[_NUMBERS] * 3, *[_TEXTS] * 2, *[_STRANGE] * 2, _NESTED)
    )
    return copy.deepcopy(rng.choice(values))


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Return a copy of nested dicts and lists with 1 to 3 values replaced, removed, altered, wrapped or doubled."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places or rng.random() < 0.02:
            return strange(rng)
        parent, key = rng.choice(places)
        value, kind = parent[key], rng.randrange(8)
        if kind < 3:
            parent[key] = strange(rng)
        elif kind == 3:
            del parent[key]
        elif kind == 4 and isinstance(value, int | float):
            parent[key] = rng.choice(
                (-value, value + 1, value * 10**6, str(value), [value], not value)
            )
        elif kind == 5:
            for _ in range(rng.choice((1, 3, 50, 100))):
                parent[key] = (
                    [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
                )
        elif kind == 6 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(value))
        elif kind == 6:
            parent[rng.choice((*_KEYS, f"{key}x"))] = copy.deepcopy(value)
        else:
            other, name = rng.choice(places)
            parent[key] = (
                copy.deepcopy(other[name])
                if other is not parent or name == key
                else strange(rng)
            )
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the dict or list that holds each value of a tree, and its key."""
    for key, value in (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    ):
        yield tree, key
        yield from _places(value)


def to_json(tree: Any) -> bytes:
    """Write a tree as json; NaN and lone surrogates are written, too."""
    return _with_marks(json.dumps(tree)).encode()


def to_toml(tree: Any) -> bytes:
    """Write a tree as TOML: one key a line, inline tables below. What TOML has no form for is written all the same."""
    if not isinstance(tree, dict):
        return _with_marks(_toml_value(tree)).encode(errors="replace")
    lines = [
        f"{json.dumps(str(key))} = {_toml_value(value)}\n"
        for key, value in tree.items()
    ]
    return _with_marks("".join(lines)).encode(errors="replace")


def _with_marks(text: str) -> str:
    return text.replace(f'"{_DEEP}"', "[" * 100_000).replace(f'"{_DIGITS}"', "1" * 5000)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{json.dumps(str(key))} = {_toml_value(item)}"
                for key, item in value.items()
            )
            + "}"
        )
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_plain else json.dumps(value)  # null, true, "text"


def split_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the table of a safetensors file, and its numbers."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(table: Any, numbers: bytes) -> bytes:
    """Return the file of a table and numbers, whatever they are."""
    text = to_json(table)
    return struct.pack("<Q", len(text)) + text + numbers


_TENSOR_VALUES: dict[str, tuple[Any, ...]] = {
    "dtype": (
        "F16",
        "BF16",
        "I64",
        "F64",
        "U8",
        "BOOL",
        "C64",
        "F8_E4M3",
        "X",
        None,
        3,
    ),
    "shape": ([], [0], [-1], [2**40, 2**40], [1.5], None, [1] * 70),
    "data_offsets": ([0, 0], [0, 2**60], [5, 1], [-1, 4], [], None),
}


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file with one tensor described wrongly, other names or numbers, or with changed bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    table, numbers = split_safetensors(content)
    name = rng.choice([key for key in table if key != "__metadata__"])
    kind = rng.randrange(6)
    if kind < 3:
        field = list(_TENSOR_VALUES)[kind]
        table[name][field] = rng.choice(_TENSOR_VALUES[field])
    elif kind == 3:
        table[rng.choice(("", "x" * 10_000, "\0", "é", "__metadata__", f"{name}x"))] = (
            table.pop(name)
        )
    elif kind == 4:
        numbers = mutate_bytes(numbers, rng)
    else:
        table = mutate_tree(table, rng)
    return join_safetensors(table, numbers)


_PREAMBLE = 10
"""Magic, version and the header's length of an npy file of version 1.0."""
_NPY_VALUES: dict[str, tuple[Any, ...]] = {
    "shape": ((), (0,), (0, 5), (-1, 5), (2**40, 2**40), (1, 1, 1, 1), (3.5, 2), (True, 5), ("a",), None, (2**63, 1),
              (10**30, 1), (1,) * 40, (13_000, 13_000), (100, 1, 1), (65, 20, 3)),
    "descr": ("|O", "<c16", "<M8[s]", "|V8", "<U5", "<f2", "<f16", "<u8", ">u2", "|b1", "x", "|u1", "<f4,<f4", "|V0",
              "<U0", None, 3, ("<f4", (2, 2)), [("a", "<f4"), ("b", "|O")]),
    "fortran_order": (True, None, 1, "x"),
}  # fmt: skip
_NPY_HEADERS = ("(" * 500 + ")" * 500, "[" * 3000, f"__import__('os').system({CODE!r})", "1" * 6000, "'\\ud800'",
                "{'descr':'<f4','shape':(" + "1" * 5000 + ",),'fortran_order':False}", "-" * 3000 + "1")  # fmt: skip


def mutate_npy(content: bytes, rng: random.Random) -> bytes:
    """Return an npy file with a changed header (a Python literal), or with changed bytes."""
    kind = rng.randrange(9)
    if kind > 5:
        return mutate_bytes(content, rng)
    if kind == 5:
        return (
            content[:6]
            + rng.choice((b"\2\0", b"\3\0", b"\0\0", b"\xff\xff", b"\1\1"))
            + content[8:]
        )
    (length,) = struct.unpack_from("<H", content, 8)
    header: Any = ast.literal_eval(content[_PREAMBLE : _PREAMBLE + length].decode())
    if kind < 3:
        field = list(_NPY_VALUES)[kind]
        header[field] = rng.choice(_NPY_VALUES[field])
    elif kind == 3:
        header.pop(rng.choice(list(header)))
    text = (rng.choice(_NPY_HEADERS) if kind == 4 else repr(header)).encode() + b"\n"
    return (
        content[:8]
        + struct.pack("<H", len(text) % 2**16)
        + text
        + content[_PREAMBLE + length :]
    )


_CELLS = ("", " ", "x" * 200_000, '"', '"a\nb"', "../../etc/passwd", "/etc/passwd", "/dev/zero", "\0", "train", "val",
          "TRAIN", "nan", "images", ".", "..", "images/../images", "é", "images//s0.png", "masks\\x", "a" * 300,
          "images/" + "a/" * 3000, "background", "id", "mask", "\x1b[2J", "pipe.png", "images/s1.png")  # fmt: skip
_ENCODINGS = (*["utf-8"] * 6, "utf-16", "latin-1", "utf-8-sig")


def mutate_csv(content: bytes, rng: random.Random) -> bytes:
    """Return a csv (UTF-8, no quotes) with 1 to 4 cells replaced and perhaps other rows, or with changed bytes."""
    kind = rng.randrange(9)
    if kind < 2:
        return mutate_bytes(content, rng)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice((*_CELLS, rng.choice(rows)[0]))
    if kind == 2:
        rows *= rng.choice((2, 50))
    elif kind == 3:
        rows.reverse()
    elif kind == 4:
        rng.choice(rows).append("x")
    elif kind == 5:
        column = rng.randrange(len(rows[0]))
        rows = [row[:column] + row[column + 1 :] for row in rows]
    text = rng.choice(("\n", "\n", "\r\n", "\r", "\n\n")).join(
        ",".join(row) for row in rows
    )
    return text.encode(rng.choice(_ENCODINGS), errors="replace")


SIZE_HW = (24, 31)
"""Of the images of the seed."""
_PIXELS = SIZE_HW[0] * SIZE_HW[1]
_COUNTS: tuple[Any, ...] = ("\ud800", "é", "", "0", "P", "o" * 1000, "\0", "k" * 100_000, [2**31], [2**63], [10**400],
                            [-1, _PIXELS + 1], [float(_PIXELS)], [0] * 1000 + [_PIXELS], [_PIXELS], [True], ["a"],
                            [[_PIXELS]], {"a": 1}, 5)  # fmt: skip
_SIZES: tuple[Any, ...] = (
    [31, 24],
    [24.0, 31.0],
    [24, 31, 1],
    "ab",
    None,
    [10**6, 10**6],
    [True, 31],
    [0, 0],
)
_POLYGONS: tuple[Any, ...] = (
    *(
        [[0, 0, 1e300, 0, 5, 5]],
        [[-31, -24, 62, 0, 5, 5]],
        [[0] * 6],
        [[float("nan")] * 6],
        [[10**400] * 6],
    ),
    *(
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, 5, 6], []],
        [[True] * 6],
        [],
        "x",
        [["1"] * 6],
        [[1.5, 1.5] * 20_000],
    ),
    {"counts": [_PIXELS], "size": list(SIZE_HW)},
)


def mutate_segmentation(annotation: dict[str, Any], rng: random.Random) -> None:
    """Damage the segmentation of one COCO annotation in place: polygons, run lengths, and the sizes beside them."""
    runs = annotation["segmentation"]
    if not isinstance(runs, dict):
        corners = [rng.randrange(-62, 124) / 2 for _ in range(rng.choice((6, 8, 50)))]
        annotation["segmentation"] = rng.choice(
            (*_POLYGONS, [corners] * rng.choice((1, 300)))
        )
    elif (kind := rng.randrange(6)) < 2:
        runs["counts"] = rng.choice(_COUNTS)
    elif kind == 2:
        runs["size"] = rng.choice(_SIZES)
    elif isinstance(runs["counts"], str):
        runs["counts"] = mutate_bytes(
            runs["counts"].encode(errors="surrogatepass"), rng
        ).decode("latin-1")
    else:
        runs["counts"] = mutate_tree(runs["counts"], rng)

"""Damage to the table of a safetensors file, and to its numbers."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

from fuzz.mutate.raw import mutate_bytes
from fuzz.mutate.tree import mutate_tree, to_json

_TYPES = ("F16", "BF16", "I64", "F64", "U8", "BOOL", "C64", "F8_E4M3", "X", None, 3)
_BAD_FLOATS = (0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0x7F7FFFFF, 1)
"""NaN, both infinities, -0, the largest and the smallest."""


def mutate_floats(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with 1 or 100 of their 32-bit words replaced by floats that spoil a sum."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 100))):
        if len(data) >= 4:
            struct.pack_into("<I", data, 4 * rng.randrange(len(data) // 4), rng.choice(_BAD_FLOATS))
    return bytes(data)


def split_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the table of a safetensors file, and its numbers."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(table: Any, numbers: bytes) -> bytes:
    """Return the file of a table and numbers, whatever they are."""
    text = to_json(table)
    return struct.pack("<Q", len(text)) + text + numbers


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file with one tensor described wrongly, other names or numbers, or with changed bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    table, numbers = split_safetensors(content)
    name = rng.choice([key for key in table if key != "__metadata__"])
    tensor, kind = table[name], rng.randrange(6)
    if kind == 0:
        tensor["dtype"] = rng.choice(_TYPES)
    elif kind == 1:
        shapes: tuple[Any, ...] = ([], [0], [-1], [2**40, 2**40], [1.5], None, [1] * 70, tensor["shape"][::-1])
        tensor["shape"] = rng.choice(shapes)
    elif kind == 2:
        tensor["data_offsets"] = rng.choice(([0, 0], [0, 2**60], [5, 1], [-1, 4], [], None, [0, len(numbers)]))
    elif kind == 3:
        table[rng.choice(("", "x" * 10_000, "\0", "é", "__metadata__", f"{name}x"))] = table.pop(name)
    elif kind == 4:
        numbers = mutate_floats(numbers, rng)
    else:
        table = mutate_tree(table, rng)
    return join_safetensors(table, numbers)

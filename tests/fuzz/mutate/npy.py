"""Damage to the header of an npy file, which is a Python literal, and to its numbers."""

from __future__ import annotations

import ast
import random
import struct
from typing import Any

from fuzz.mutate.code import CODE
from fuzz.mutate.raw import mutate_bytes
from fuzz.mutate.tensors import mutate_floats

_PREAMBLE = 10
"""Magic, version and the header's length of version 1.0."""
_SHAPES: tuple[Any, ...] = ((), (0,), (0, 5), (-1, 5), (2**40, 2**40), (2**62, 4), (1, 1, 1, 1), (3.5, 2), (True, 5),
                            ("a",), None, (2**63, 1), (10**30, 1), (1,) * 40, (13_000, 13_000), (100, 1, 1),
                            (65, 20, 3), (2, 2))  # fmt: skip
_TYPES: tuple[Any, ...] = (
    *("|O", "<c16", "<M8[s]", "|V8", "<U5", "|S3", "<f2", "<f16", "<u8", "<i8", ">u2", "|b1", "x", "<m8[ns]", "|u1"),
    *(">f8", "<f8", "<f4,<f4", "|V0", "<U0", "|S0", None, 3, ("<f4", (2, 2))),
    *([("a", "<f4"), ("b", "<u2")], [("a", "|O")]),
)
_HEADERS = (
    "(" * 500 + ")" * 500,
    "{" * 200,
    "[" * 3000,
    f"__import__('os').system({CODE!r})",
    "{'descr':'<f4','shape':(" + "1" * 5000 + ",),'fortran_order':False}",
    "1" * 6000,
    "'\\ud800'",
    "b'a'",
    "{**{}}",
    "-" * 3000 + "1",
)


def mutate_npy(content: bytes, rng: random.Random) -> bytes:
    """Return an npy file with a changed header or changed numbers, or with changed bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    (length,) = struct.unpack_from("<H", content, 8)
    header: dict[str, Any] = ast.literal_eval(content[_PREAMBLE : _PREAMBLE + length].decode())
    numbers = content[_PREAMBLE + length :]
    kind = rng.randrange(8)
    if kind == 0:
        header["shape"] = rng.choice(_SHAPES)
    elif kind == 1:
        header["descr"] = rng.choice(_TYPES)
    elif kind == 2:
        header["fortran_order"] = rng.choice((True, None, 1, "x"))
    elif kind == 3:
        header.pop(rng.choice(list(header)))
    elif kind == 4:
        header["x"] = 1
    elif kind == 5:
        return content[:6] + rng.choice((b"\2\0", b"\3\0", b"\0\0", b"\xff\xff", b"\1\1")) + content[8:]
    elif kind == 6:
        return _joined(content, rng.choice(_HEADERS), numbers)
    else:
        numbers = mutate_floats(numbers, rng)
    return _joined(content, repr(header), numbers)


def _joined(content: bytes, header: str, numbers: bytes) -> bytes:
    text = header.encode() + b"\n"
    return content[:8] + struct.pack("<H", len(text) % 2**16) + text + numbers

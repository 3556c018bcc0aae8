"""Damage to bytes, whatever they mean."""

from __future__ import annotations

import random
import struct

EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 257, 4095, 2**15 - 1, 2**15, 2**16 - 2, 2**16 - 1, 2**16, 2**24,
         2**31 - 1, 2**31, 2**32 - 1)  # fmt: skip
"""Numbers at which sizes, counts and offsets go wrong."""
_LARGE_EDGES = (2**40, 2**63 - 1, 2**63, 2**64 - 1)
_WORDS = ("<H", ">H", "<I", ">I", "<Q", ">Q")
_HEADER = 400
"""Half of the damage falls into so many first bytes: that is where a file says how large it is."""


def mutate_bytes(content: bytes, rng: random.Random, times: int | None = None) -> bytes:
    """Return bytes with 1 to 30 random changes, or with `times` of them."""
    data = bytearray(content)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 5, 10, 30))):
        if not data:
            break
        rng.choice(_CHANGES)(data, rng)
    return bytes(data)


def random_bytes(rng: random.Random, count: int) -> bytes:
    """Return `count` random bytes."""
    return rng.randbytes(count)


def _place(data: bytearray, rng: random.Random) -> int:
    end = min(len(data), _HEADER) if rng.random() < 0.5 else len(data)
    return rng.randrange(end)


def _flip_bit(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _step_byte(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at] = (data[at] + rng.choice((-1, 1))) % 256


def _set_number(data: bytearray, rng: random.Random) -> None:
    layout = rng.choice(_WORDS)
    width = struct.calcsize(layout)
    at = min(_place(data, rng), len(data) - width)
    if at >= 0:
        value = rng.choice(EDGES + _LARGE_EDGES) % (1 << 8 * width)
        struct.pack_into(layout, data, at, value)


def _set_float(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at : at + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), float("-inf"), -0.0, 3e38)))


def _cut_short(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 16, 200))]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = random_bytes(rng, rng.choice((1, 2, 4, 16)))


def _repeat(data: bytearray, rng: random.Random) -> None:
    source = rng.randrange(len(data))
    at = _place(data, rng)
    data[at:at] = data[source : source + rng.choice((4, 12, 64, 300))]


def _swap(data: bytearray, rng: random.Random) -> None:
    one, other, count = _place(data, rng), rng.randrange(len(data)), rng.choice((1, 4, 32))
    first, second = data[one : one + count], data[other : other + count]
    data[one : one + count], data[other : other + count] = second, first


def _append_zeros(data: bytearray, rng: random.Random) -> None:
    data += bytes(rng.choice((1, 100, 10_000)))


_CHANGES = (
    _flip_bit,
    _set_byte,
    _step_byte,
    _set_number,
    _set_float,
    _cut_short,
    _remove,
    _insert,
    _repeat,
    _swap,
    _append_zeros,
)

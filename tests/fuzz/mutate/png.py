"""Damage to the chunks of a PNG, with checksums that are right again."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass

from fuzz.mutate.raw import EDGES, mutate_bytes, random_bytes

_MAGIC = b"\x89PNG\r\n\x1a\n"
_NAMES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"pHYs",
          b"sBIT", b"tIME", b"IDAT", b"IEND", b"IHDR", b"xxxx")  # fmt: skip
_HEADER_LENGTH = 13


@dataclass
class _Chunk:
    name: bytes
    data: bytes


def mutate_png(content: bytes, rng: random.Random) -> bytes:
    """Return a PNG with 1 to 3 of its chunks changed, or with changed bytes."""
    if rng.random() < 0.3 or not content.startswith(_MAGIC):
        return mutate_bytes(content, rng)
    chunks = _split(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if chunks:
            rng.choice(_CHANGES)(chunks, rng)
    return _MAGIC + b"".join(_joined(chunk, right=rng.random() < 0.97) for chunk in chunks)


def _split(content: bytes) -> list[_Chunk]:
    chunks, at = [], len(_MAGIC)
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunks.append(_Chunk(name, content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _joined(chunk: _Chunk, *, right: bool) -> bytes:
    checksum = zlib.crc32(chunk.name + chunk.data) if right else 0
    return struct.pack(">I", len(chunk.data)) + chunk.name + chunk.data + struct.pack(">I", checksum)


def _pixels(chunks: list[_Chunk]) -> list[_Chunk]:
    return [chunk for chunk in chunks if chunk.name == b"IDAT"]


def _change_header(chunks: list[_Chunk], rng: random.Random) -> None:
    header = bytearray(chunks[0].data)
    if len(header) != _HEADER_LENGTH:
        return
    field = rng.randrange(6)
    if field < 2:  # width, height
        struct.pack_into(">I", header, 4 * field, rng.choice(EDGES))
    elif field == 2:
        header[8] = rng.choice((0, 1, 2, 3, 4, 8, 16, 32, 255))  # bits
    elif field == 3:
        header[9] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 255))  # colour type
    else:
        header[rng.randrange(10, 13)] = rng.randrange(3)  # compression, filter, interlace
    chunks[0].data = bytes(header)


def _claim_many_pixels(chunks: list[_Chunk], rng: random.Random) -> None:
    side = rng.choice((13_000, 13_377, 20_000))
    chunks[0].data = struct.pack(">IIBBBBB", side, side, rng.choice((1, 8)), 0, 0, 0, 0)
    for chunk in _pixels(chunks)[:1]:
        chunk.data = zlib.compress(bytes(rng.choice((1000, 10**6))))


def _change_pixels(chunks: list[_Chunk], rng: random.Random) -> None:
    pixels = _pixels(chunks)
    try:
        raw = zlib.decompress(b"".join(chunk.data for chunk in pixels))
    except zlib.error:
        return
    if pixels:
        pixels[0].data = zlib.compress(mutate_bytes(raw, rng))
        for chunk in pixels[1:]:
            chunks.remove(chunk)


def _insert(chunks: list[_Chunk], rng: random.Random) -> None:
    data = rng.choice(
        (
            b"",
            b'Description\0{"unit":[1]}',
            b'Description\0{"unit": {}, "bits": 1e400}',
            b"a\0\0" + zlib.compress(bytes(rng.choice((10, 10**7)))),
            random_bytes(rng, rng.choice((1, 4, 26, 300))),
            struct.pack(">II", 2, 0),
        )
    )
    chunks.insert(rng.randrange(len(chunks) + 1), _Chunk(rng.choice(_NAMES), data))


def _change_bytes(chunks: list[_Chunk], rng: random.Random) -> None:
    chunk = rng.choice(chunks)
    chunk.data = mutate_bytes(chunk.data, rng)


def _remove(chunks: list[_Chunk], rng: random.Random) -> None:
    del chunks[rng.randrange(len(chunks))]


def _shuffle(chunks: list[_Chunk], rng: random.Random) -> None:
    rng.shuffle(chunks)


def _change_case(chunks: list[_Chunk], rng: random.Random) -> None:
    chunk = rng.choice(chunks)
    chunk.name = bytes([chunk.name[0] ^ 32]) + chunk.name[1:]  # critical <-> ancillary


_CHANGES = (
    _change_header,
    _change_header,
    _change_header,
    _claim_many_pixels,
    _change_pixels,
    _insert,
    _change_bytes,
    _remove,
    _shuffle,
    _change_case,
)

"""Damage to the chunks of a PNG, with checksums that are right again, and to the directories of a TIFF."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass

from fuzz.damage import EDGES, mutate_bytes

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
    chunks, at = [], len(_MAGIC)
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunks.append(_Chunk(name, content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.choice((1, 1, 2, 3))):
        if chunks:
            _change_chunks(chunks, rng)
    damaged = _MAGIC
    for chunk in chunks:
        checksum = zlib.crc32(chunk.name + chunk.data) if rng.random() < 0.97 else 0
        damaged += struct.pack(">I", len(chunk.data)) + chunk.name + chunk.data + struct.pack(">I", checksum)
    return damaged


def _change_chunks(chunks: list[_Chunk], rng: random.Random) -> None:
    chunk = rng.choice(chunks)
    pixels = [one for one in chunks if one.name == b"IDAT"]
    match rng.randrange(10):
        case 0 | 1 | 2:
            _change_header(chunks[0], rng)
        case 3:  # many pixels, as if in a small file
            side = rng.choice((13_000, 13_377, 20_000))
            chunks[0].data = struct.pack(">IIBBBBB", side, side, rng.choice((1, 8)), 0, 0, 0, 0)
            for one in pixels[:1]:
                one.data = zlib.compress(bytes(rng.choice((1000, 10**6))))
        case 4:
            try:
                raw = zlib.decompress(b"".join(one.data for one in pixels))
            except zlib.error:
                return
            for one in pixels[1:]:
                chunks.remove(one)
            for one in pixels[:1]:
                one.data = zlib.compress(mutate_bytes(raw, rng))
        case 5:
            texts = (b"", b'Description\0{"unit":[1]}', b'Description\0{"unit": {}, "bits": 1e400}',
                     b"a\0\0" + zlib.compress(bytes(rng.choice((10, 10**7)))),
                     rng.randbytes(rng.choice((1, 4, 26, 300))), struct.pack(">II", 2, 0))  # fmt: skip
            chunks.insert(rng.randrange(len(chunks) + 1), _Chunk(rng.choice(_NAMES), rng.choice(texts)))
        case 6:
            chunk.data = mutate_bytes(chunk.data, rng)
        case 7:
            chunks.remove(chunk)
        case 8:
            rng.shuffle(chunks)
        case _:
            chunk.name = bytes([chunk.name[0] ^ 32]) + chunk.name[1:]  # critical <-> ancillary


def _change_header(chunk: _Chunk, rng: random.Random) -> None:
    header, field = bytearray(chunk.data), rng.randrange(6)
    if len(header) != _HEADER_LENGTH:
        return
    if field < 2:  # width, height
        struct.pack_into(">I", header, 4 * field, rng.choice(EDGES))
    elif field == 2:
        header[8] = rng.choice((0, 1, 2, 3, 4, 8, 16, 32, 255))  # bits
    elif field == 3:
        header[9] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 255))  # colour type
    else:
        header[rng.randrange(10, 13)] = rng.randrange(3)  # compression, filter, interlace
    chunk.data = bytes(header)


_TAGS = (254, 255, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 280, 284, 290, 296, 305, 306, 317,
         318, 320, 321, 322, 323, 324, 325, 330, 338, 339, 340, 347, 512, 530, 532, 700,
         32997, 33550, 33628, 33629, 33630,
         33922, 34118, 34264, 34377, 34680, 34735, 34736, 34737, 37706, 42112, 42113, 43314, 50215, 50838, 50839, 65000,
         65330)  # fmt: skip
_TYPES = (*range(14), 16, 17, 18, 99)
_TEXT_TAGS = (270, 305, 42112, 42113, 34737, 50839, 700, 65000)
_OME = (
    b'<?xml version="1.0"?><OME><Image><Pixels SizeX="8" SizeY="8" SizeC="1000000" SizeZ="100000" SizeT="1" '
    b'DimensionOrder="XYCZT" Type="uint8"><TiffData><UUID FileName="/etc/passwd">urn:x</UUID></TiffData></Pixels>'
    b"</Image></OME>"
)
_TEXTS = (
    *(b'{"unit": [1]}', b'{"unit": "cK"}', b'{"unit": {"a": 1}}', b'{"shape": [1000000, 1000000, 1000000]}', _OME),
    *(b"ImageJ=1.53\nimages=1000000000\nslices=1000000000\n", b"ImageJ=1.5\nimages=3\nhyperstack=true\n"),
    b"<GDALMetadata><Item name='a' sample='99999999999' role='scale'>1e400</Item></GDALMetadata>",
    b"<GDALMetadata><Item sample='-1' role='scale'>nan</Item></GDALMetadata>",
    *(b"SCANIMAGE", b"nan", b"1e400", b"1" * 400, b"--", b"0x10", b"{" * 3000, b"[" * 100_000, b"<" * 1000),
    "\u0661".encode(),
)
_ENTRY = 12
_MAX_BYTES = 2**24
"""Of many directories: a small file is what is dangerous."""
_SHORT = 3


@dataclass(frozen=True)
class _Directory:
    """Where a directory of a classic TIFF lies: after its count come entries of 12 bytes, then the next one's place."""

    at: int
    count: int

    def entry(self, index: int) -> int:
        return self.at + 2 + _ENTRY * index

    @property
    def next(self) -> int:
        return self.entry(self.count)


def mutate_tiff(content: bytes, rng: random.Random) -> bytes:
    """Return a TIFF with 1 to 3 changes to its directories, or with changed bytes; a BigTIFF gets changed bytes."""
    if rng.random() < 0.25 or content[:4] not in (b"II*\0", b"MM\0*"):
        return mutate_bytes(content, rng)
    data, order = bytearray(content), "<" if content[:2] == b"II" else ">"
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        directories = [found for found in _directories(data, order) if found.count]
        if not directories:
            return mutate_bytes(bytes(data), rng)
        _change_directory(data, order, rng.choice(directories), rng)
    return bytes(data)


def _directories(data: bytearray, order: str) -> list[_Directory]:
    found: list[_Directory] = []
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    while at and at + 2 <= len(data) and len(found) < 50 and at not in [one.at for one in found]:
        directory = _Directory(at, struct.unpack_from(f"{order}H", data, at)[0])
        if directory.next + 4 > len(data):
            break
        found.append(directory)
        (at,) = struct.unpack_from(f"{order}I", data, directory.next)
    return found


def _change_directory(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    def put(layout: str, at: int, value: int) -> None:
        struct.pack_into(order + layout, data, at, value % (1 << 8 * struct.calcsize(layout)))

    at = place.entry(rng.randrange(place.count))
    match rng.randrange(14):
        case 0:
            put("H", at, rng.choice(_TAGS))
        case 1:
            put("H", at + 2, rng.choice(_TYPES))
        case 2:
            put("I", at + 4, rng.choice(EDGES))
        case 3 | 4 | 5 | 6:
            if struct.unpack_from(f"{order}HI", data, at + 2) == (_SHORT, 1):
                put("H", at + 8, rng.choice(EDGES))
            else:
                put("I", at + 8, rng.choice((*EDGES, len(data), len(data) - 1, place.at)))
        case 7:
            put("I", place.next, rng.choice((place.at, 8, len(data), 0, 1, 2**32 - 1)))
        case 8:
            one, other = at + 8, place.entry(rng.randrange(place.count)) + 8
            data[one : one + 4], data[other : other + 4] = data[other : other + 4], data[one : one + 4]
        case 9 | 10 | 11 | 12:
            _append_directories(data, order, place, rng)
        case _:
            data[:] = mutate_bytes(bytes(data), rng, 1)
            data += bytes(max(8 - len(data), 0))


def _append_directories(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    """Put the directory once more at the end, as the first one: with a text, with many tags, or as many pages."""
    following = bytes(data[place.next : place.next + 4])
    entries = [bytes(data[place.entry(index) : place.entry(index + 1)]) for index in range(place.count)]
    pages, kind = 1, rng.randrange(4)
    if kind < 2:
        tag, text = rng.choice(_TEXT_TAGS), rng.choice(_TEXTS) + b"\0"
        numbered = {struct.unpack(f"{order}H", entry[:2])[0]: entry for entry in entries}
        numbered[tag] = struct.pack(f"{order}HHII", tag, 2, len(text), len(data))
        data += text
        entries = [numbered[number] for number in sorted(numbered)]
    elif kind == 2:
        more = rng.choice((100, 5000, 60_000))
        entries += [struct.pack(f"{order}HHII", 60_000 + number % 5000, 4, 1, 7) for number in range(more)]
    else:
        pages = min(rng.choice((2, 50, 200, 3000)), max(_MAX_BYTES // (_ENTRY * len(entries)), 1))
        following = bytes(4)
    entries = entries[: 2**16 - 1]
    body = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    data += bytes(len(data) % 2)
    struct.pack_into(f"{order}I", data, 4, len(data))
    for page in range(pages):
        last = page + 1 == pages
        data += body + (following if last else struct.pack(f"{order}I", len(data) + len(body) + 4))

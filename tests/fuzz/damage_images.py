"""Damage to the chunks of a PNG, with checksums that are right again, and to the directories of a TIFF."""

from __future__ import annotations

import random
import struct
import zlib

from fuzz.damage import EDGES, mutate_bytes

_MAGIC = b"\x89PNG\r\n\x1a\n"
_NAMES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fdAT", b"gAMA", b"sBIT", b"IDAT",
          b"IEND", b"IHDR", b"xxxx")  # fmt: skip
_CHUNK_TEXTS = (b"", b'Description\0{"unit":[1]}', b'Description\0{"unit": {}, "bits": 1e400}', b"\0\0\0\2\0\0\0\0",
                b"a\0\0" + zlib.compress(bytes(10**7)))  # fmt: skip
_BITS_COLOUR = (0, 1, 2, 3, 4, 6, 8, 16, 255)


def mutate_png(content: bytes, rng: random.Random) -> bytes:
    """Return a PNG with 1 to 3 of its chunks changed, or with changed bytes."""
    if rng.random() < 0.3 or not content.startswith(_MAGIC):
        return mutate_bytes(content, rng)
    chunks, at = [], len(_MAGIC)
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunks.append((name, content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.choice((1, 1, 2, 3))):
        if chunks:
            _change_chunks(chunks, rng)
    parts = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
             for name, data in chunks]  # fmt: skip
    return _MAGIC + b"".join(parts)


def _change_chunks(chunks: list[tuple[bytes, bytes]], rng: random.Random) -> None:
    index = rng.randrange(len(chunks))
    name, data = chunks[index]
    header = chunks[0][1]
    match rng.randrange(9):
        case 0 | 1:  # width or height
            field = rng.randrange(2)
            sizes = [*struct.unpack_from(">II", header.ljust(8, b"\0"))]
            sizes[field] = rng.choice(EDGES)
            chunks[0] = chunks[0][0], struct.pack(">II", *sizes) + header[8:]
        case 2:  # bits, colour type, compression, filter, interlace
            place = rng.randrange(8, 13)
            chunks[0] = (
                chunks[0][0],
                header[:place]
                + bytes([rng.choice(_BITS_COLOUR)])
                + header[place + 1 :],
            )
        case 3:  # many pixels in a small file
            side = rng.choice((13_000, 20_000))
            chunks[:] = [
                (
                    b"IHDR",
                    struct.pack(">IIBBBBB", side, side, rng.choice((1, 8)), 0, 0, 0, 0),
                ),
                (b"IDAT", zlib.compress(bytes(rng.choice((1000, 10**6))))),
                (b"IEND", b""),
            ]
        case 4 if name == b"IDAT":
            try:
                chunks[index] = (
                    name,
                    zlib.compress(mutate_bytes(zlib.decompress(data), rng)),
                )
            except zlib.error:
                return
        case 5:
            chunks.insert(index, (rng.choice(_NAMES), rng.choice(_CHUNK_TEXTS)))
        case 6:
            chunks.pop(index)
        case 7:
            # critical <-> ancillary
            chunks[index] = bytes([name[0] ^ 32]) + name[1:], data
        case _:
            chunks[index] = name, mutate_bytes(data, rng)


_TAGS = (254, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 284, 305, 317, 320, 322, 323, 324, 325,
         330, 338, 339, 347, 513, 530, 32997, 33550, 33628, 33922, 34118, 34264, 34735, 34736, 34737, 42112, 42113,
         50838, 50839, 65000)  # fmt: skip
_TYPES = (*range(14), 16, 17, 18, 99)
_TEXT_TAGS = (270, 305, 42112, 42113, 34737, 50839, 65000)
_OME = (
    b'<?xml version="1.0"?><OME><Image><Pixels SizeX="8" SizeY="8" SizeC="1000000" SizeZ="100000" SizeT="1" '
    b'DimensionOrder="XYCZT" Type="uint8"><TiffData><UUID FileName="/etc/passwd">urn:x</UUID></TiffData></Pixels>'
    b"</Image></OME>"
)
_TEXTS = (
    *(
        b'{"unit": [1]}',
        b'{"unit": "cK"}',
        b'{"unit": {"a": 1}}',
        b'{"shape": [1000000, 1000000, 1000000]}',
        _OME,
    ),
    *(
        b"ImageJ=1.53\nimages=1000000000\nslices=1000000000\n",
        b"ImageJ=1.5\nimages=3\nhyperstack=true\n",
    ),
    b"<GDALMetadata><Item name='a' sample='99999999999' role='scale'>1e400</Item></GDALMetadata>",
    b"<GDALMetadata><Item sample='-1' role='scale'>nan</Item></GDALMetadata>",
    *(
        b"SCANIMAGE",
        b"nan",
        b"1e400",
        b"1" * 400,
        b"--",
        b"{" * 3000,
        b"[" * 100_000,
        b"<" * 1000,
    ),
)
_MAX_BYTES = 2**24
"""Of many directories: a small file is what is dangerous."""


def mutate_tiff(content: bytes, rng: random.Random) -> bytes:
    """Return a TIFF with 1 to 3 changes to its directories, or with changed bytes; a BigTIFF gets changed bytes."""
    if rng.random() < 0.25 or content[:4] not in (b"II*\0", b"MM\0*"):
        return mutate_bytes(content, rng)
    data, order = bytearray(content), "<" if content[:2] == b"II" else ">"
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        directories = _directories(data, order)
        if not directories:
            return mutate_bytes(bytes(data), rng)
        start, count = rng.choice(directories)
        if rng.random() < 0.35:
            _append_directories(data, order, start, count, rng)
            continue
        # tag, type, count and value, or the place of the values
        entry = start + 2 + 12 * rng.randrange(count)
        is_short = struct.unpack_from(f"{order}HI", data, entry + 2) == (3, 1)
        layout, at, values = rng.choice(
            (
                ("H", entry, _TAGS),
                ("H", entry + 2, _TYPES),
                ("I", entry + 4, EDGES),
                *[("H" if is_short else "I", entry + 8, (*EDGES, len(data), start))]
                * 4,
                # the next directory
                ("I", start + 2 + 12 * count, (start, 8, len(data), 0, 1, 2**32 - 1)),
            )
        )
        struct.pack_into(
            order + layout,
            data,
            at,
            rng.choice(values) % (1 << 8 * struct.calcsize(layout)),
        )
    return bytes(data)


def _directories(data: bytearray, order: str) -> list[tuple[int, int]]:
    """Return start and number of entries of each directory that has entries and lies within the file."""
    found: list[tuple[int, int]] = []
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    while at and at + 2 <= len(data) and len(found) < 50 and at not in dict(found):
        (count,) = struct.unpack_from(f"{order}H", data, at)
        end = at + 2 + 12 * count
        if not count or end + 4 > len(data):
            break
        found.append((at, count))
        (at,) = struct.unpack_from(f"{order}I", data, end)
    return found


def _append_directories(
    data: bytearray, order: str, start: int, count: int, rng: random.Random
) -> None:
    """Put the directory once more at the end, as the first one: with a text, with many tags, or as many pages."""
    entries = [bytes(data[start + 2 + 12 * index :][:12]) for index in range(count)]
    pages, kind = 1, rng.randrange(4)
    if kind < 2:
        tag, text = rng.choice(_TEXT_TAGS), rng.choice(_TEXTS) + b"\0"
        numbered = {
            struct.unpack(f"{order}H", entry[:2])[0]: entry for entry in entries
        }
        numbered[tag] = struct.pack(f"{order}HHII", tag, 2, len(text), len(data))
        data += text
        entries = [numbered[number] for number in sorted(numbered)]
    elif kind == 2:
        more = rng.choice((100, 5000, 60_000))
        entries += [
            struct.pack(f"{order}HHII", 60_000 + number % 5000, 4, 1, 7)
            for number in range(more)
        ]
    else:
        pages = min(rng.choice((2, 50, 3000)), max(_MAX_BYTES // (12 * count), 1))
    entries = entries[: 2**16 - 1]
    body = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    data += bytes(len(data) % 2)
    struct.pack_into(f"{order}I", data, 4, len(data))
    for page in range(pages):
        following = 0 if page + 1 == pages else len(data) + len(body) + 4
        data += body + struct.pack(f"{order}I", following)

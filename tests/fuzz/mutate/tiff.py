"""Damage to the directories of a TIFF: tags, types, counts, offsets, pages and texts."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from fuzz.mutate.raw import EDGES, mutate_bytes

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
    b'{"unit": [1]}',
    b'{"unit": "cK"}',
    b'{"unit": {"a": 1}}',
    b'{"shape": [1000000, 1000000, 1000000]}',
    b"ImageJ=1.53\nimages=1000000000\nslices=1000000000\n",
    b"ImageJ=1.5\nimages=3\nhyperstack=true\n",
    _OME,
    b"<GDALMetadata><Item name='a' sample='99999999999' role='scale'>1e400</Item></GDALMetadata>",
    b"<GDALMetadata><Item sample='-1' role='scale'>nan</Item></GDALMetadata>",
    b"SCANIMAGE",
    b"nan",
    b"1e400",
    b"1" * 400,
    b"--",
    b"0x10",
    b"{" * 3000,
    b"[" * 100_000,
    b"<" * 1000,
    "\u0661".encode(),
)
_ENTRY = 12
_MOST_BYTES = 2**24
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
        rng.choice(_CHANGES)(data, order, rng.choice(directories), rng)
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


def _set(data: bytearray, layout: str, at: int, value: int) -> None:
    struct.pack_into(layout, data, at, value % (1 << 8 * struct.calcsize(layout)))


def _change_tag(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    _set(data, f"{order}H", place.entry(rng.randrange(place.count)), rng.choice(_TAGS))


def _change_type(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    _set(data, f"{order}H", place.entry(rng.randrange(place.count)) + 2, rng.choice(_TYPES))


def _change_count(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    _set(data, f"{order}I", place.entry(rng.randrange(place.count)) + 4, rng.choice(EDGES))


def _change_value(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    at = place.entry(rng.randrange(place.count))
    kind, count = struct.unpack_from(f"{order}HI", data, at + 2)
    if kind == _SHORT and count == 1:
        _set(data, f"{order}H", at + 8, rng.choice(EDGES))
    else:
        _set(data, f"{order}I", at + 8, rng.choice((*EDGES, len(data), len(data) - 1, place.at)))


def _change_next(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    _set(data, f"{order}I", place.next, rng.choice((place.at, 8, len(data), 0, 1, 2**32 - 1)))


def _swap_values(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    one, other = (place.entry(rng.randrange(place.count)) + 8 for _ in range(2))
    data[one : one + 4], data[other : other + 4] = data[other : other + 4], data[one : one + 4]


def _entries(data: bytearray, place: _Directory) -> list[bytes]:
    return [bytes(data[place.entry(index) : place.entry(index + 1)]) for index in range(place.count)]


def _append(data: bytearray, order: str, entries: list[bytes], following: bytes) -> None:
    """Put a directory at the end, and make it the first one."""
    data += bytes(len(data) % 2)
    _set(data, f"{order}I", 4, len(data))
    entries = entries[: 2**16 - 1]
    data += struct.pack(f"{order}H", len(entries)) + b"".join(entries) + following


def _add_text(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    tag, text = rng.choice(_TEXT_TAGS), rng.choice(_TEXTS) + b"\0"
    following = bytes(data[place.next : place.next + 4])
    numbered = {struct.unpack(f"{order}H", entry[:2])[0]: entry for entry in _entries(data, place)}
    numbered[tag] = struct.pack(f"{order}HHII", tag, 2, len(text), len(data))
    data += text
    _append(data, order, [numbered[number] for number in sorted(numbered)], following)


def _add_many_tags(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    following = bytes(data[place.next : place.next + 4])
    more = [struct.pack(f"{order}HHII", 60_000 + n % 5000, 4, 1, 7) for n in range(rng.choice((100, 5000, 60_000)))]
    _append(data, order, _entries(data, place) + more, following)


def _add_many_pages(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    """Let many pages share the pixels of one."""
    entries, pages = _entries(data, place), rng.choice((2, 50, 200, 3000))
    pages = min(pages, max(_MOST_BYTES // (_ENTRY * len(entries)), 1))
    body = struct.pack(f"{order}H", len(entries)) + b"".join(entries)
    data += bytes(len(data) % 2)
    _set(data, f"{order}I", 4, len(data))
    for page in range(pages):
        following = len(data) + len(body) + 4 if page + 1 < pages else 0
        data += body + struct.pack(f"{order}I", following)


def _change_bytes(data: bytearray, order: str, place: _Directory, rng: random.Random) -> None:
    data[:] = mutate_bytes(bytes(data), rng, 1)
    data += bytes(max(8 - len(data), 0))


_CHANGES = (
    _change_tag,
    _change_type,
    _change_count,
    _change_value,
    _change_value,
    _change_value,
    _change_value,
    _change_next,
    _swap_values,
    _add_text,
    _add_text,
    _add_many_tags,
    _add_many_pages,
    _change_bytes,
)

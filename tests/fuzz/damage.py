"""Ways to damage a file: any bytes, and what readers trust in npy, safetensors, csv, zip and COCO annotations.

Each takes a source of random numbers. Those of hypothesis shrink: smaller numbers are fewer and simpler changes.
"""

from __future__ import annotations

import ast
import io
import json
import random
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.damage_trees import mutate_tree, to_json

Mutation = Callable[[bytes, random.Random], bytes]

CODE_RAN = "code-ran"
"""File in the working folder of a case; it is there where something of the file was run."""
CODE = f"touch {CODE_RAN}"
"""What a hostile file would do if a reader ran code from it."""
EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 257, 4095, 2**15 - 1, 2**15, 2**16 - 2, 2**16 - 1, 2**16, 2**24,
         2**31 - 1, 2**31, 2**32 - 1)  # fmt: skip
"""Numbers at which sizes, counts and offsets go wrong."""
_LARGE_EDGES = (2**40, 2**63 - 1, 2**63, 2**64 - 1)
_HEADER = 400
"""Half of the damage falls into so many first bytes: that is where a file says how large it is."""


def mutate_file(path: Path, rng: random.Random) -> bytes:
    """Return the content of a file, damaged in a way that suits its format."""
    from fuzz.damage_images import mutate_png, mutate_tiff

    by_ending = {".png": mutate_png, ".tif": mutate_tiff, ".npy": mutate_npy, ".safetensors": mutate_safetensors}
    return by_ending.get(path.suffix, mutate_bytes)(path.read_bytes(), rng)


def mutate_bytes(content: bytes, rng: random.Random, times: int | None = None) -> bytes:
    """Return bytes with 1 to 30 random changes, or with `times` of them."""
    data = bytearray(content)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 5, 10, 30))):
        if data:
            _change_bytes(data, rng)
    return bytes(data)


def _change_bytes(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(min(len(data), _HEADER) if rng.random() < 0.5 else len(data))
    match rng.randrange(11):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        case 2:
            data[at] = (data[at] + rng.choice((-1, 1))) % 256
        case 3:
            layout = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            width = struct.calcsize(layout)
            if len(data) >= width:
                value = rng.choice(EDGES + _LARGE_EDGES) % (1 << 8 * width)
                struct.pack_into(layout, data, min(at, len(data) - width), value)
        case 4:
            bad = rng.choice((float("nan"), float("inf"), float("-inf"), -0.0, 3e38))
            data[at : at + 4] = struct.pack("<f", bad)
        case 5:
            del data[rng.randrange(len(data)) :]
        case 6:
            del data[at : at + rng.choice((1, 2, 4, 16, 200))]
        case 7:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
        case 8:
            source = rng.randrange(len(data))
            data[at:at] = data[source : source + rng.choice((4, 12, 64, 300))]
        case 9:
            other, count = rng.randrange(len(data)), rng.choice((1, 4, 32))
            first, second = data[at : at + count], data[other : other + count]
            data[at : at + count], data[other : other + count] = second, first
        case _:
            data += bytes(rng.choice((1, 100, 10_000)))


_BAD_FLOATS = (0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0x7F7FFFFF, 1)
"""NaN, both infinities, -0, the largest and the smallest."""


def mutate_floats(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with 1 or 100 of their 32-bit words replaced by floats that spoil a sum."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 100))):
        if len(data) >= 4:
            struct.pack_into("<I", data, 4 * rng.randrange(len(data) // 4), rng.choice(_BAD_FLOATS))
    return bytes(data)


_TENSOR_TYPES = ("F16", "BF16", "I64", "F64", "U8", "BOOL", "C64", "F8_E4M3", "X", None, 3)


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
        tensor["dtype"] = rng.choice(_TENSOR_TYPES)
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


_PREAMBLE = 10
"""Magic, version and the header's length of an npy file of version 1.0."""
_NPY_VALUES: dict[str, tuple[Any, ...]] = {
    "shape": ((), (0,), (0, 5), (-1, 5), (2**40, 2**40), (2**62, 4), (1, 1, 1, 1), (3.5, 2), (True, 5), ("a",), None,
              (2**63, 1), (10**30, 1), (1,) * 40, (13_000, 13_000), (100, 1, 1), (65, 20, 3), (2, 2)),
    "descr": ("|O", "<c16", "<M8[s]", "|V8", "<U5", "|S3", "<f2", "<f16", "<u8", "<i8", ">u2", "|b1", "x", "<m8[ns]",
              "|u1", ">f8", "<f8", "<f4,<f4", "|V0", "<U0", "|S0", None, 3, ("<f4", (2, 2)),
              [("a", "<f4"), ("b", "<u2")], [("a", "|O")]),
    "fortran_order": (True, None, 1, "x"),
}  # fmt: skip
_NPY_HEADERS = ("(" * 500 + ")" * 500, "{" * 200, "[" * 3000, f"__import__('os').system({CODE!r})",
                "{'descr':'<f4','shape':(" + "1" * 5000 + ",),'fortran_order':False}", "1" * 6000, "'\\ud800'", "b'a'",
                "{**{}}", "-" * 3000 + "1")  # fmt: skip


def mutate_npy(content: bytes, rng: random.Random) -> bytes:
    """Return an npy file with a changed header (a Python literal) or changed numbers, or with changed bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    (length,) = struct.unpack_from("<H", content, 8)
    header: Any = ast.literal_eval(content[_PREAMBLE : _PREAMBLE + length].decode())
    numbers, kind = content[_PREAMBLE + length :], rng.randrange(8)
    if kind < 3:
        name = list(_NPY_VALUES)[kind]
        header[name] = rng.choice(_NPY_VALUES[name])
    elif kind == 3:
        header.pop(rng.choice(list(header)))
    elif kind == 4:
        header["x"] = 1
    elif kind == 5:
        return content[:6] + rng.choice((b"\2\0", b"\3\0", b"\0\0", b"\xff\xff", b"\1\1")) + content[8:]
    elif kind == 6:
        header = rng.choice(_NPY_HEADERS)
    else:
        numbers = mutate_floats(numbers, rng)
    text = (header if isinstance(header, str) else repr(header)).encode() + b"\n"
    return content[:8] + struct.pack("<H", len(text) % 2**16) + text + numbers


_CELLS = ("", " ", "x" * 200_000, '"', '"a\nb"', "../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "\0",
          "=1+1", "train", "val", "test", "TRAIN", "nan", "images", ".", "..", "images/../images", "é", "\u202e",
          "images//s0.png", "./images", "masks\\x", "~", "%s%n", "a" * 300, "images/" + "a/" * 3000, "none",
          "background", "id", "mask", "\x1b[2J", "pipe.png", "images/s1.png")  # fmt: skip
_ENCODINGS = (*["utf-8"] * 6, "utf-16", "latin-1", "utf-8-sig", "utf-32")


def mutate_csv(content: bytes, rng: random.Random) -> bytes:
    """Return a csv (UTF-8, no quotes) with 1 to 4 cells replaced and perhaps other rows, or with changed bytes."""
    kind = rng.randrange(12)
    if kind < 3:
        return mutate_bytes(content, rng)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice((*_CELLS, rng.choice(rows)[0]))
    if kind == 3:
        rows *= rng.choice((2, 50))
    elif kind == 4:
        rng.shuffle(rows)
    elif kind == 5:
        rng.choice(rows).append("x")
    elif kind == 6:
        column = rng.randrange(len(rows[0]))
        rows = [row[:column] + row[column + 1 :] for row in rows]
    text = rng.choice(("\n", "\n", "\r\n", "\r", "\n\n")).join(",".join(row) for row in rows)
    return text.encode(rng.choice(_ENCODINGS), errors="replace")


ESCAPED = "escaped"
"""Name of a file that a path in a zip would put outside of the folder it is unpacked into."""
_ENTRY_KINDS = (stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFDIR | 0o755, stat.S_IFBLK | 0o644)


def mutate_zip(content: bytes, rng: random.Random, mutate_member: Mutation = mutate_bytes) -> bytes:
    """Return a zip with one member changed, renamed or missing, with one more, or with changed bytes.

    Args:
        content: a zip.
        rng: decides what is done.
        mutate_member: damages the content of a member: (bytes, rng) -> bytes.
    """
    if rng.random() < 0.35:
        return mutate_bytes(content, rng)
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    victim, kind = rng.choice(source.namelist()), rng.randrange(9)
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name that stands twice
        for name in source.namelist():
            data, hit = source.read(name), name == victim
            if hit and kind < 4:
                data = mutate_member(data, rng)
            if hit and kind == 4:
                continue
            if hit and kind == 5:
                name = rng.choice((f"../{name}", f"../{ESCAPED}", f"/{name}", f"{name}\\x", "é", name.upper(), "C:\\x",
                                   f"a/{name}", "", f"{name}/", "\0"))  # fmt: skip
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            if hit and kind == 6:
                entry.external_attr = rng.choice(_ENTRY_KINDS) << 16
            archive.writestr(entry, data)
        if kind == 7:
            archive.writestr(rng.choice((victim, "x", f"../{ESCAPED}", "bundle.json ", "./bundle.json")), b"x")
        if kind == 8:
            archive.comment = bytes(65_535)
    damaged = target.getvalue()
    return mutate_bytes(damaged, rng, 1) if rng.random() < 0.15 else damaged


SIZE_HW = (24, 31)
"""Of the images of the seed."""
_PIXELS = SIZE_HW[0] * SIZE_HW[1]
_COUNTS: tuple[Any, ...] = (
    *("\ud800", "é", "", "0", "P", "o" * 1000, "\0", "k" * 100_000),
    *([2**31], [2**63], [10**400], [-1, _PIXELS + 1], [float(_PIXELS)], [0] * 1000 + [_PIXELS], [_PIXELS]),
    *([True], ["a"], [[_PIXELS]], {"a": 1}, 5),
)
_SIZES: tuple[Any, ...] = ([31, 24], [24.0, 31.0], [24, 31, 1], "ab", None, [10**6, 10**6], [True, 31], [0, 0])
_POLYGONS: tuple[Any, ...] = (
    *([[0, 0, 1e300, 0, 5, 5]], [[-31, -24, 62, 0, 5, 5]], [[0, 0, 0, 0, 0, 0]], [[float("nan")] * 6]),
    *([[10**400] * 6], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, 6], []], [[True] * 6], [], "x", [["1"] * 6]),
    *([[1.5, 1.5] * 20_000], [[0, 0, 31, 0, 31, 24, 0, 24]], [[-0.5, -0.5, 31.5, -0.5, 31.5, 24.5]]),
    {"counts": [_PIXELS], "size": list(SIZE_HW)},
)


def mutate_segmentation(annotation: dict[str, Any], rng: random.Random) -> None:
    """Damage the segmentation of one COCO annotation in place: polygons, run lengths, and the sizes beside them."""
    runs = annotation["segmentation"]
    if not isinstance(runs, dict):
        low, high = -max(SIZE_HW), 2 * max(SIZE_HW)
        corners = [rng.uniform(low, high) for _ in range(rng.choice((6, 8, 50)))]
        annotation["segmentation"] = rng.choice((*_POLYGONS, [corners] * rng.choice((1, 300))))
        return
    kind = rng.randrange(8)
    if kind < 2:
        runs["counts"] = rng.choice(_COUNTS)
    elif kind == 2:
        runs["size"] = rng.choice(_SIZES)
    elif isinstance(runs["counts"], str):
        runs["counts"] = mutate_bytes(runs["counts"].encode(errors="surrogatepass"), rng).decode("latin-1")
    else:
        runs["counts"] = mutate_tree(runs["counts"], rng)

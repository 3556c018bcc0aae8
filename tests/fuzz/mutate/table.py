"""Damage to a csv: cells, rows, line ends and encodings."""

from __future__ import annotations

import random

from fuzz.mutate.raw import mutate_bytes

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

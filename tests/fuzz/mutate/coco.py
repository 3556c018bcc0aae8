"""Damage to the segmentations of COCO annotations: polygons, run lengths, and the sizes beside them."""

from __future__ import annotations

import random
from typing import Any

from fuzz.mutate.raw import mutate_bytes
from fuzz.mutate.tree import mutate_tree

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
    [[0, 0, 1e300, 0, 5, 5]],
    [[-31, -24, 62, 0, 5, 5]],
    [[0, 0, 0, 0, 0, 0]],
    [[float("nan")] * 6],
    [[10**400] * 6],
    [[1, 2, 3, 4, 5]],
    [[1, 2, 3, 4, 5, 6], []],
    [[True] * 6],
    [],
    "x",
    [["1"] * 6],
    [[1.5, 1.5] * 20_000],
    [[0, 0, 31, 0, 31, 24, 0, 24]],
    [[-0.5, -0.5, 31.5, -0.5, 31.5, 24.5]],
    {"counts": [_PIXELS], "size": list(SIZE_HW)},
)


def mutate_segmentation(annotation: dict[str, Any], rng: random.Random) -> None:
    """Damage the segmentation of one annotation in place."""
    runs = annotation["segmentation"]
    if not isinstance(runs, dict):
        annotation["segmentation"] = rng.choice((*_POLYGONS, _random_polygons(rng)))
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


def _random_polygons(rng: random.Random) -> list[list[float]]:
    low, high = -max(SIZE_HW), 2 * max(SIZE_HW)
    corners = [rng.uniform(low, high) for _ in range(rng.choice((6, 8, 50)))]
    return [corners] * rng.choice((1, 300))

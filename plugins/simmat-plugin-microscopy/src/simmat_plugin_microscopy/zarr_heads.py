"""What the heads of an OME-Zarr claim, before its reader believes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import DataError
from simmat.io.limits import decoded_limit, decoding_errors
from simmat.io.paths import check_links
from simmat.io.reading import read_json

_NAMES = (".zarray", ".zmetadata", "zarr.json")
"""Files that describe arrays: of version 2, of a whole store, and of version 3."""
_MAX_HEAD = 2**26
"""Bytes of a head; that of a whole store repeats all others."""
_MAX_CHUNKS = 2**18
"""Chunks of one plane: 131,072 pixels square in chunks of 256; each of them takes time, however small it is."""
_MAX_STEPS = 2**20
"""Chunks along one axis; the reader lists them all."""


def check_heads(store: Path) -> None:
    """Refuse an OME-Zarr of version 2 or 3 that leads out of its folder, or whose chunks are too large or too many.

    Raises:
        DataError: it does, or a head of it is damaged.
    """
    check_links(store)
    for name in _NAMES:
        for head in store.rglob(name):
            stated = read_json(
                head, "head of a Zarr store", limit=_MAX_HEAD, constants=True
            )
            with decoding_errors(head, "zarr"):
                for array in _arrays(stated):
                    _check_array(head, array)


def _arrays(stated: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the arrays that a head describes, also those of a whole store."""
    if not isinstance(stated, dict):
        return
    if "shape" in stated and ("chunks" in stated or "chunk_grid" in stated):
        yield stated
        return
    for value in stated.values():
        yield from _arrays(value)


def _check_array(head: Path, array: Mapping[str, Any]) -> None:
    if "chunks" in array:
        chunk = array["chunks"]
        inflated = chunk
        dtype = np.dtype(array["dtype"])
    else:
        chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
        inflated = _inflated(chunk, array["codecs"])
        dtype = np.dtype(array["data_type"])
    _check_chunk(head, inflated, dtype.itemsize)
    counts = [
        math.ceil(size / max(step, 1))
        for size, step in zip(array["shape"], inflated, strict=True)
    ]
    if max(counts, default=0) > _MAX_STEPS or math.prod(counts[-2:]) > _MAX_CHUNKS:
        raise DataError(
            f"{head}: claims {' x '.join(map(str, array['shape']))} values in chunks of "
            f"{' x '.join(map(str, inflated))}, more than {_MAX_CHUNKS} chunks of a plane; it may be damaged. If it is "
            "right, write it with larger chunks"
        )


def _inflated(chunk: Sequence[int], codecs: Sequence[Mapping[str, Any]]) -> Any:
    """Return the shape of what is inflated at once: a chunk, or a part of one that is written in parts."""
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        inside = codecs[0]["configuration"]
        return _inflated(inside["chunk_shape"], inside["codecs"])
    return chunk


def _check_chunk(head: Path, chunk: Sequence[int], itemsize: int) -> None:
    size = math.prod(chunk) * itemsize
    limit = decoded_limit()
    if size > limit:
        listed = " x ".join(map(str, chunk))
        raise DataError(
            f"{head}: claims chunks of {listed} values, {size / 2**30:.3g} GiB each, more than the limit of "
            f"{limit / 2**30:.3g} GiB; it may be damaged. If it is right, write it with smaller chunks, or raise the "
            "limit: simmat --max-image-gib N …"
        )

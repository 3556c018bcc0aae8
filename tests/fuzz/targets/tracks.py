"""A file of prompts, which says from where objects are followed."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fuzz.case import Case, Place, Target
from fuzz.damage import mutate_bytes, mutate_tree, to_json
from fuzz.seeds.images import HEIGHT, WIDTH
from simmat.data.pipeline import Pipeline
from simmat.data.sequence import FrameSequence
from simmat.model import SimMAT
from simmat.predictor import Predictor
from simmat.sensors.builtin import Gray
from simmat.types import Channel

if TYPE_CHECKING:
    from simmat_plugin_sequences.given_masks import GivenFrame

_COUNT = 3
"""Frames."""
_ROWS = [
    ["file", "object", "point", "negative", "box"],
    ["0000", "1", "10,12", "", ""],
    ["0000", "1", "11,12", "2,2", ""],
    ["0001", "cow", "", "", "2,3,20,20"],
    ["2", "7", "5,5", "", "1,1,9,9"],
]
_CELLS = ("", " ", "x" * 5000, "\0", "é", ".", "..", "a/b", "-1", "3", "1e400,1", "nan,1", "1", "1,2,3", "30,23",
          "31,24", "-1,-1", "0,0,0,0", "9,9,1,1", "0,0,1e9,1e9", "01", "٣", "9" * 5000, "1" * 18, "frames.npy/0000",
          "0001.png", "/", '"', "point", "=1+1", "1_0,1")  # fmt: skip
_COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "0000"}, {"id": 2, "file_name": "2"}],
    "annotations": [
        {"id": 4, "image_id": 1, "bbox": [1, 2, 9, 9]},
        {"id": 5, "image_id": 2, "bbox": [3.5, 2, 9, 9]},
    ],
}


def _frames(place: Place) -> FrameSequence:
    """Return a sequence of grey frames of the size of the masks of the seeds."""
    file = place.scratch / "frames.npy"
    values = np.arange(_COUNT * HEIGHT * WIDTH, dtype=np.float32)
    np.save(file, values.reshape(_COUNT, 1, HEIGHT, WIDTH))
    return FrameSequence(file, Gray())


def _predictor() -> Predictor:
    """Return a model that answers each prompt with the same mask."""
    from scripted_model import Scripted, one_mask

    model = Scripted(one_mask(np.eye(32, dtype=np.bool_)))
    channel = Channel("gray", "counts", "count").with_statistics(500, 100)
    return Predictor(cast(SimMAT, model), Pipeline(Gray(), (channel,), 32))


def _prompts(place: Place, rng: random.Random) -> Case:
    is_coco = rng.random() < 0.3
    if is_coco:
        content = to_json(mutate_tree(_COCO, rng))
    else:
        content = _damaged_rows(rng)
    if rng.random() < 0.15:
        content = mutate_bytes(content, rng)
    path = place.put("prompts.json" if is_coco else "prompts.csv", content)

    def read() -> None:
        from simmat_plugin_sequences.track_prompts import predicted_masks

        found = predicted_masks(_predictor(), path, _frames(place))
        assert found, "no masks"
        _check(found)

    return Case(read)


def _damaged_rows(rng: random.Random) -> bytes:
    """Return a csv with up to 4 cells replaced, perhaps other rows, in some encoding."""
    rows = [list(row) for row in _ROWS]
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice((*_CELLS, rng.choice(_ROWS)[0]))
    kind = rng.randrange(8)
    if kind == 0:
        rows += rows[1:] * rng.choice((1, 50))
    elif kind == 1:
        rng.choice(rows).append("x")
    elif kind == 2:
        rows.pop(rng.randrange(len(rows)))
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    encoding = rng.choice((*["utf-8"] * 6, "utf-16", "utf-8-sig"))
    return text.getvalue().encode(encoding)


def _check(found: Mapping[int, GivenFrame]) -> None:
    """Check the masks of frames."""
    for frame, given in found.items():
        assert 0 <= frame < _COUNT, f"frame {frame}"
        assert given.size_hw == (HEIGHT, WIDTH), f"masks of {given.size_hw}"
        for number, region in given.regions.items():
            assert number > 0, f"object {number}"
            if region is not None:
                mask = region.mask(given.size_hw)
                assert mask.any(), f"object {number} without pixels"


_NEEDS = ("simmat_plugin_sequences",)
TARGETS = (Target("follow-prompts", _prompts, needs=_NEEDS, weight=2),)

"""What a run records of new images before it trains on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runs import config, gray_set, registry

from simmat import training


def records(run: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ]


def test_new_images_are_scored_before_they_are_learned(tmp_path: Path) -> None:
    """Only then is the score that of images which the model does not know: a point of an honest learning curve."""
    data = gray_set(tmp_path / "set", train=5)
    few = config(data, tmp_path / "few", steps=1, train_images=2)
    training.train(few, registry())
    more = config(data, tmp_path / "more", steps=1, init=tmp_path / "few")
    training.train(more, registry())
    assert not [one for one in records(tmp_path / "few") if one["kind"] == "new"]
    (new,) = [one for one in records(tmp_path / "more") if one["kind"] == "new"]
    assert new["labels"] == 2
    assert new["scores"]["images"] == 3  # of train; those of val are known
    assert 0 <= new["scores"]["miou_object"] <= 1

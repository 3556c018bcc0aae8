"""What trainings leave for later: the state and the log."""

from __future__ import annotations

import json
import random

from fuzz.case import Case, Place, Target
from fuzz.damage import (
    join_safetensors,
    mutate_bytes,
    mutate_safetensors,
    mutate_tree,
    split_safetensors,
    to_json,
)
from simmat.training.run_folder import RunFolder, fingerprint_in, load_state

_LAST_STEP = 1


def _state(place: Place, rng: random.Random) -> Case:
    content = (place.seeds.folder("run") / "last.safetensors").read_bytes()
    if rng.random() < 0.5:
        table, numbers = split_safetensors(content)
        notes = json.loads(table["__metadata__"]["simmat"])
        table["__metadata__"]["simmat"] = to_json(mutate_tree(notes, rng)).decode()
        damaged = join_safetensors(table, numbers)
    else:
        damaged = mutate_safetensors(content, rng)
    path = place.put("last.safetensors", damaged)

    def read() -> None:
        state = load_state(path)
        assert isinstance(state.notes.step, int), f"step is {state.notes.step!r}"
        assert fingerprint_in(path) == str(state.notes.fingerprint), "two fingerprints"

    return Case(read)


def _log(place: Place, rng: random.Random) -> Case:
    lines = (place.seeds.folder("run") / "metrics.jsonl").read_bytes().splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        index = rng.randrange(len(lines))
        is_json = (
            rng.random() < 0.7
            and lines[index].startswith(b"{")
            and lines[index].endswith(b"}")
        )
        lines[index] = (
            to_json(mutate_tree(_parsed(lines[index]), rng))
            if is_json
            else mutate_bytes(lines[index], rng)
        )
    place.put("metrics.jsonl", b"\n".join(lines))

    def read() -> None:
        folder = RunFolder(place.files)
        folder.remove_records_after(_LAST_STEP)
        assert all(record["step"] <= _LAST_STEP for record in folder.records()), (
            "a later record was kept"
        )

    return Case(read)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # damaged by an earlier change
        return {}


TARGETS = (
    Target("state", _state),
    Target("log", _log),
)

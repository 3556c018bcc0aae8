"""What trainings and benches leave for later: the state, the log, and the files of cells."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.case import Case, Place, Target, registry
from fuzz.damage import (
    join_safetensors,
    mutate_bytes,
    mutate_safetensors,
    mutate_tree,
    split_safetensors,
    to_json,
)
from simmat.training.run_folder import RunFolder, fingerprint_in, load_state

if TYPE_CHECKING:
    from simmat_plugin_bench.grid import Bench

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
        folder.reopen(_LAST_STEP)
        assert all(record["step"] <= _LAST_STEP for record in folder.records()), (
            "a later record was kept"
        )

    return Case(read)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # damaged by an earlier change
        return {}


def _bench(place: Place, out: Path) -> tuple[Bench, Path]:
    """Expand the bench of the seeds, its cells filled in `out`; return it and its TOML."""
    from bench_set import fill
    from simmat_plugin_bench.grid import expand
    from simmat_plugin_bench.settings import read_settings

    seed = place.seeds.folder("bench")
    shutil.copy(seed / "bench.toml", place.scratch)
    (place.scratch / "set").symlink_to(seed / "set")
    toml = place.scratch / "bench.toml"
    bench = expand(read_settings(toml), toml, out, registry())
    for index, cell in enumerate(bench.cells):
        fill(cell, val=0.25 + index / 100, test=0.5 + index / 100)
    return bench, toml


def _report(place: Place, rng: random.Random) -> Case:
    from simmat_plugin_bench.cells import (
        read_results,
        results_of,
        take_results,
        write_results,
    )
    from simmat_plugin_bench.grid import expand
    from simmat_plugin_bench.report import csv_rows, latex, markdown, write_bench_page
    from simmat_plugin_bench.results import collect
    from simmat_plugin_bench.settings import read_settings

    bench, toml = _bench(place, place.files / "out")
    out = bench.out
    write_results(place.scratch / "results.json", results_of(bench.cells))
    cells = sorted(out.glob("cells/**/*.json"))
    victim = rng.choice((*cells, *[place.scratch / "results.json"] * len(cells)))
    content = victim.read_bytes()
    tree = rng.random() < 0.8
    victim.write_bytes(
        to_json(mutate_tree(json.loads(content), rng))
        if tree
        else mutate_bytes(content, rng)
    )

    def read() -> None:
        if victim.parent == place.scratch:
            cells = [
                replace(cell, root=place.scratch / "empty" / cell.name)
                for cell in bench.cells
            ]
            done, other = take_results(victim, cells)
            assert done + other <= len(read_results(victim)), "more cells than results"
        results = collect(expand(read_settings(toml), toml, out, registry()))
        markdown(results), latex(results), list(csv_rows(results))
        write_bench_page(place.scratch / "index.html", results, {}, "")

    return Case(read, outputs=frozenset({"out/*"}))


TARGETS = (
    Target("state", _state),
    Target("log", _log),
    Target("bench-report", _report, needs=("simmat_plugin_bench",), weight=3),
)

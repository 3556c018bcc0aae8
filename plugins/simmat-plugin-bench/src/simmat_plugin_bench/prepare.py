"""Prepare a bench before its first job: the folder, simulated data, cells of other settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence

import filelock

from simmat.config import TrainConfig
from simmat.data.fingerprint import Contents
from simmat.data.index import contents_of
from simmat.documents import listed
from simmat.errors import ConfigError, DataError, OutputError, SimMATError, all_problems
from simmat.evaluation import nothing_to_score
from simmat.io.files import atomic_write_text, check_writable, recover_folder
from simmat.plugins.registry import Registry
from simmat.sensors.simulated_scene import import_scenes
from simmat.training import RunFolder, changes_noted, fingerprint_in, open_data
from simmat_plugin_bench.cells import Cell, Result, read_cell_file
from simmat_plugin_bench.grid import Bench, slug

RUN_WITH = "bench.toml"
"""Copy of the TOML in the bench's folder."""
_BENCH_FILES = {".lock", RUN_WITH, "cells"}
"""Names by which the folder of a bench is recognised."""


def locked(bench: Bench) -> filelock.BaseFileLock:
    """Lock the bench's folder for this process.

    Raises:
        OutputError: it cannot be written, has other content, or another bench runs in it.
    """
    if bench.out.is_dir() and (found := {file.name for file in bench.out.iterdir()}) and not found & _BENCH_FILES:
        raise OutputError(f"{bench.out} is not empty and not a bench; choose another --out, or remove it first")
    check_writable(bench.out)
    bench.out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(bench.out / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise OutputError(f"another bench is running in {bench.out}; wait for it, or choose another --out") from error
    return lock


def check_inputs(bench: Bench, cells: Iterable[Cell], registry: Registry) -> None:
    """Check all data sets and weight files before the first cell runs.

    Raises:
        ConfigError: a data set cannot be opened or has nothing to test on, or a checkpoint is missing; the message
            holds every problem.
    """
    problems: list[str] = []
    opened: set[tuple[str, float]] = set()
    for cell in cells:
        config = cell.config
        if config.checkpoint is not None and not config.checkpoint.is_file():
            problems.append(f"checkpoint of {cell.foundation}: {config.checkpoint} does not exist")
        key = _reading(config), config.paste
        if cell.simulate is not None or key in opened:
            continue
        opened.add(key)
        try:
            dataset = open_data(config, registry)
            test = dataset.split("test")
            if not any(dataset.label(sample).regions for sample in test):
                raise nothing_to_score(dataset, test)
        except SimMATError as error:
            problems.append(f"data {cell.dataset!r}: {error}")
    if problems:
        raise ConfigError(listed(str(bench.path), problems))


def ready_to_run(
    bench: Bench, cells: Sequence[Cell], registry: Registry, *, rerun_changed: bool, say: Callable[[str], object]
) -> None:
    """Simulate data sets, and remove or refuse cells that were run with other settings or data.

    Args:
        cells: the cells to run; all others stay as they are.
        rerun_changed: remove cells that were run with other settings or data, so that they run again.
        say: called with a sentence for everything that is made or removed.

    Raises:
        ConfigError: cells were run with other settings or data, and `rerun_changed` is False.
        SimMATError: a data set cannot be simulated or opened.
    """

    def clear(changed: Sequence[tuple[Cell, str]]) -> None:
        if changed and not rerun_changed:
            raise ConfigError(
                all_problems(
                    f"{len(changed)} cells in {bench.out} were run with other settings or data than {bench.path} has "
                    "now; restore them, choose another --out, or remove and rerun the cells with --rerun-changed:",
                    [f"{cell.name}: {why}" for cell, why in changed],
                )
            )
        for cell, why in changed:
            say(f"removed {cell.name}, which was run with other settings or data: {why}")
            shutil.rmtree(cell.root)

    clear([(cell, cell.changes()) for cell in cells if cell.state() == "changed"])
    _simulate(bench, {cell.dataset for cell in cells}, registry, say)
    configs = {_reading(cell.config): cell.config for cell in cells}
    contents = {key: contents_of(open_data(config, registry)) for key, config in configs.items()}
    clear([(cell, why) for cell in cells if (why := _data_change(cell, contents[_reading(cell.config)]))])
    for warning in dict.fromkeys(found.shared_warning() for found in contents.values()):
        if warning:
            say(warning)
    atomic_write_text(bench.out / RUN_WITH, bench.path.read_text(encoding="utf-8"))


def remove_losers(chosen: Sequence[Cell], tried: Sequence[Cell], *, keep_bundles: bool) -> None:
    """Remove the bundles of learning rates that were not chosen, and without `keep_bundles` those of tested cells."""
    for cell in tried:
        state = cell.state()
        lost = bool(chosen) and cell not in chosen and state == "trained"
        if lost or (state == "tested" and not keep_bundles):
            shutil.rmtree(cell.folder.run / "bundle", ignore_errors=True)


def _data_change(cell: Cell, contents: Contents) -> str:
    """Return how the data changed since a cell was run or started; "" if it did not."""
    before = _data_of(cell)
    if before is None or before == contents.fingerprint:
        return ""
    what = changes_noted(RunFolder(cell.folder.run), before, contents)
    return "its data has changed" + (f": {what}" if what else "")


def _reading(config: TrainConfig) -> str:
    """Return a key of all settings that affect how the data is read."""
    return repr((config.data, config.modality, config.modality_options, config.channels, config.card_overrides()))


def _data_of(cell: Cell) -> str | None:
    """Return the data fingerprint of a run or started cell; None if it is unknown or the cell has not started."""
    if cell.state() in ("open", "changed"):
        return None
    if cell.folder.result.is_file():  # a cell whose test failed has one, too
        return str(read_cell_file(cell.folder.result, Result)["data"]["fingerprint"])
    try:
        return fingerprint_in(RunFolder(cell.folder.run).state)
    except DataError:
        return None  # missing or damaged: the cell's own run reports it


def _simulate(bench: Bench, names: Collection[str], registry: Registry, say: Callable[[str], object]) -> None:
    """Simulate the data sets of these names, except those already simulated with the present settings."""
    for data in bench.settings.data:
        if data.simulate is None or data.name not in names:
            continue
        folder = recover_folder(bench.out / "data" / slug(data.name))
        made, note = data.simulate, folder.with_name(f"{folder.name}.json")
        how = json.dumps({"modality": data.modality, **made.model_dump(mode="json")}, sort_keys=True)
        if folder.is_dir():
            if note.is_file() and note.read_bytes() == how.encode():
                continue
            shutil.rmtree(folder)
        simulate = import_scenes("dataset").simulate_dataset
        simulate(registry.modality(data.modality), folder, made.count, made.seed, size_hw=made.size[::-1])
        atomic_write_text(note, how)
        say(f"simulated {made.count} samples of {data.modality} in {folder}")

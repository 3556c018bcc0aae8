"""A cell of a bench: one run, its folder with json files, its state; and all results of a bench in one json file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from simmat.config import MUTABLE_ON_RESUME, PATH_SETTINGS, TrainConfig
from simmat.documents import StrictModel, validate
from simmat.errors import DataError
from simmat.io.files import atomic_write_json, atomic_write_text
from simmat.io.reading import parse_json, read_bytes
from simmat.sensors.options import is_sensor_file, modality_parts
from simmat.sensors.sensor_toml import read_sensor
from simmat_plugin_bench.settings import Simulated, metrics_of

FORMAT = 1

_MAX_METRIC = 2.0**53
"""Limit of metrics, so that means and deviations do not overflow."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=_MAX_METRIC)]
Iou = Annotated[float, Field(ge=0, le=1)]


class CellFile(StrictModel):
    """A json file of a cell; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")


class CellSettings(CellFile):
    """`cell.json`: the cell's settings."""

    kind: str
    digest: str
    settings: dict[str, Any]


class DataRead(CellFile):
    """The data of a result."""

    path: str
    fingerprint: str


class Validation(CellFile):
    """The best validation of a run."""

    miou_object: Iou


class CurvePoint(Validation):
    """One validation of a run."""

    step: Count


class CellResult(CellFile):
    """`result.json`; `val` is None if the run diverged, `test` is None until the cell is tested."""

    digest: str
    data: DataRead
    diverged: str
    val: Validation | None
    curve: list[CurvePoint]
    test: dict[str, Any] | None
    test_ious: dict[str, list[Iou]] = Field(default_factory=dict)
    trainable: Count
    total: Count
    steps: Count
    train_samples: Count
    seconds: Seconds
    device: str
    threads: Count
    peak_memory_bytes: Count
    peak_device_bytes: Count | None

    @field_validator("test")
    @classmethod
    def _no_overflow(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        large = [
            name
            for name, number in metrics_of(value or {})
            if abs(number) > _MAX_METRIC
        ]
        if large:
            raise ValueError(f"{large[0]} is larger than any score")
        return value


class Failure(CellFile):
    """`failure.json`: why a cell failed."""

    log: str


class Clock(CellFile):
    """`clock.json`: the time before an interruption."""

    seconds: Seconds


def read_cell_file(
    path: Path, kind: type[CellFile], *, remedy: str = ""
) -> dict[str, Any]:
    """Read and check a json file of a bench.

    Args:
        kind: model of its content.
        remedy: what to do if it is damaged; by default to remove the cell.

    Returns:
        The values in the file, including keys that `kind` does not have.

    Raises:
        DataError: the file is damaged, or of another format.
    """
    content = read_bytes(path, "file of a bench")
    try:
        values = parse_json(content)
        if not isinstance(values, dict) or "format" not in values:
            raise ValueError("not a table with a key 'format'")
        if values["format"] != FORMAT:
            raise DataError(
                f"{path} was written by another version of simmat; use that version, or another --out"
            )
        validate(kind, values)
    except ValueError as error:
        remedy = remedy or f"remove {path.parent} and run the bench again"
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error
    return values


State = Literal["open", "begun", "trained", "tested", "failed", "changed"]
"""Not started · started, to be resumed · trained but not tested · tested · failed · started with other settings."""

_NOT_THE_RESULT = set((MUTABLE_ON_RESUME | PATH_SETTINGS) - {"foundation"})
"""Settings that do not change the result: where and how a run is done."""


class CellFolder:
    """Paths of a cell.

    Attributes:
        settings: the cell's settings, json, see `CellSettings`.
        config: the settings of the run, TOML, as `simmat train --config` reads them.
        run: the folder of the run.
        result: the result, json; exists once the run is done.
        failure: why it failed, json.
        clock: seconds spent before an interruption, json.
        log: the output of the runs.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.run = root, root / "run"
        self.settings, self.config = root / "cell.json", root / "config.toml"
        self.result, self.failure, self.clock = (
            root / f"{name}.json" for name in ("result", "failure", "clock")
        )
        self.log = root / "log.txt"


@dataclass(frozen=True)
class Cell:
    """One run of a bench.

    Attributes:
        kind: "train", or "zero-shot" for the untrained model, which is only scored.
        lr: learning rate; None is the tuner's own.
        root: the cell's folder.
        simulate: how the data set is simulated; None if it is not.
        weights: sha256 of the foundation model's weight file; None for random weights.
    """

    dataset: str
    arm: str
    foundation: str
    kind: str
    seed: int
    lr: float | None
    config: TrainConfig
    root: Path
    simulate: Simulated | None = None
    weights: str | None = None

    @property
    def folder(self) -> CellFolder:
        """Its paths."""
        return CellFolder(self.root)

    @property
    def name(self) -> str:
        """Data set/foundation model/arm/run."""
        return "/".join(self.root.parts[-4:])

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide the result, as json values without defaults."""
        simulate = None
        if self.simulate is not None:
            simulate = self.simulate.model_dump(mode="json")
        return {
            "kind": self.kind,
            "dataset": self.dataset,
            "simulate": simulate,
            "weights": self.weights,
            **self.config.model_dump(
                mode="json", exclude_defaults=True, exclude=_NOT_THE_RESULT
            ),
            "modality": "+".join(map(_sensor, modality_parts(self.config.modality))),
        }

    def digest(self) -> str:
        """Return the sha256 of `settings`."""
        return digest_of(self.settings())

    def state(self) -> State:
        """Return the state of the cell."""
        folder = self.folder
        if not folder.settings.is_file():
            return "open"
        if read_cell_file(folder.settings, CellSettings)["digest"] != self.digest():
            return "changed"
        if folder.failure.is_file():
            return "failed"
        if not folder.result.is_file():
            return "begun"
        return (
            "tested"
            if read_cell_file(folder.result, CellResult)["test"] is not None
            else "trained"
        )

    def result(self) -> dict[str, Any] | None:
        """Return the result; None if there is none, or it is of other settings."""
        if self.state() not in ("trained", "tested"):
            return None
        return read_cell_file(self.folder.result, CellResult)

    def changes(self) -> str:
        """Return the settings that changed since the cell was started, for messages."""
        before, now = (
            read_cell_file(self.folder.settings, CellSettings)["settings"],
            self.settings(),
        )
        return ", ".join(
            f"{key} = {now.get(key, 'default')}, was {before.get(key, 'default')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        )


def matches(cell: Cell, pattern: str | None) -> bool:
    """Return whether a part of a cell's name matches a shell pattern; None matches all."""
    return pattern is None or fnmatch(cell.name, f"*{pattern}*")


def digest_of(settings: Mapping[str, Any]) -> str:
    """Return the sha256 of json values, independent of the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _sensor(part: str) -> str:
    """Return a sensor's name, for a `sensor.toml` with a digest of its content in place of its path."""
    if not is_sensor_file(part):
        return part
    definition = read_sensor(part).definition
    return f"{definition.name} ({digest_of(definition.model_dump(mode='json'))[:16]})"


def write_cell_settings(cell: Cell) -> None:
    """Write a cell's settings into its folder, before it starts."""
    values = {
        "format": FORMAT,
        "kind": cell.kind,
        "digest": cell.digest(),
        "settings": cell.settings(),
    }
    atomic_write_json(cell.folder.settings, values)


RESULTS = "results.json"
"""Name of the file in the bench's folder."""


class StoredResult(CellFile):
    """The settings and the result of one cell."""

    settings: dict[str, Any]
    result: CellResult

    @field_validator("result")
    @classmethod
    def _is_of_its_settings(cls, result: CellResult, info: Any) -> CellResult:
        if (
            "settings" in info.data
            and digest_of(info.data["settings"]) != result.digest
        ):
            raise ValueError("the result does not belong to its settings")
        return result


class StoredResults(CellFile):
    """The content of the file."""

    cells: dict[str, StoredResult]


def results_of(cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Return settings and result of every cell with a result, by the cell's name, as json values.

    Raises:
        DataError: a file of a cell is damaged.
    """
    found = {}
    for cell in cells:
        if (result := cell.result()) is not None:
            settings = read_cell_file(cell.folder.settings, CellSettings)["settings"]
            found[cell.name] = {
                "settings": settings,
                "result": {k: v for k, v in result.items() if k != "format"},
            }
    return found


def write_results(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write results from `results_of`, one line per cell, so that two versions can be compared line by line.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = [
        f"{json.dumps(name)}: {json.dumps(entry, allow_nan=False)}"
        for name, entry in sorted(found.items())
    ]
    atomic_write_text(
        path, f'{{"format": {FORMAT}, "cells": {{\n' + ",\n".join(lines) + "\n}}\n"
    )


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file from `write_results`.

    Raises:
        DataError: it cannot be read, is damaged or of another format, or a result does not belong to its settings.
    """
    return dict(
        read_cell_file(path, StoredResults, remedy=f"give the {RESULTS} of a bench")[
            "cells"
        ]
    )


def take_results(path: Path, cells: Iterable[Cell]) -> tuple[int, int]:
    """Write the results of a file into the cells that have not started.

    Returns:
        The number of cells filled, and of those skipped because their settings differ.

    Raises:
        DataError: as `read_results`.
        OutputError: a cell cannot be written.
    """
    found = read_results(path)
    done = other = 0
    for cell in cells:
        if (entry := found.get(cell.name)) is None or cell.state() != "open":
            continue
        if entry["result"]["digest"] != cell.digest():
            other += 1
            continue
        # The order is written last: without it a cell counts as not started, even after a crash.
        cell.root.mkdir(parents=True, exist_ok=True)
        atomic_write_json(cell.folder.result, {"format": FORMAT, **entry["result"]})
        write_cell_settings(cell)
        done += 1
    return done, other

"""A cell of a bench: a folder that says what is to be done in it, and what came out; its json files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from simmat.config import FILES, FREE, TrainConfig
from simmat.documents import Document, validate
from simmat.errors import DataError
from simmat.io.files import atomic_write_json, parse_json, read_bytes
from simmat.sensors.declared import read_sensor
from simmat.sensors.options import is_sensor_file, modality_parts
from simmat_plugin_bench.settings import Simulated, figures_of

FORMAT = 1
_MOST_BYTES = 2**30

_LARGEST = 2.0**53
"""No figure is larger; means and deviations of larger ones would overflow."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=_LARGEST)]
Iou = Annotated[float, Field(ge=0, le=1)]


class CellFile(Document):
    """A json file of a cell; more may stand in it than is asked for."""

    model_config = ConfigDict(extra="ignore")


class Order(CellFile):
    """`cell.json`: what is to be done."""

    kind: str
    digest: str
    settings: dict[str, Any]


class DataRead(CellFile):
    """Which data a result is of."""

    path: str
    fingerprint: str


class Validation(CellFile):
    """The best validation of a run."""

    miou_object: Iou


class CurvePoint(Validation):
    """One validation of a run."""

    step: Count


class Result(CellFile):
    """`result.json`: what came out; `val` is None where the run diverged, `test` until the test split was read."""

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
        large = [name for name, number in figures_of(value or {}) if abs(number) > _LARGEST]
        if large:
            raise ValueError(f"figure {large[0]} is larger than any score")
        return value


class Failure(CellFile):
    """`failure.json`: why a cell failed."""

    log: str


class Clock(CellFile):
    """`clock.json`: time spent before an interruption."""

    seconds: Seconds


def read_cell_file(
    path: Path, kind: type[CellFile], *, what: str = "file of a bench", remedy: str = ""
) -> dict[str, Any]:
    """Read a json file of a cell, or of many.

    Args:
        path: the file.
        kind: what must stand in it.
        what: what the file is, for messages.
        remedy: what to do where it is damaged; by default to remove the cell.

    Returns:
        Its values as they stand there, also those that `kind` does not ask for.

    Raises:
        DataError: it is damaged, or of another format.
    """
    content = read_bytes(path, what, limit=_MOST_BYTES)
    try:
        values = parse_json(content)
        if not isinstance(values, dict) or "format" not in values:
            raise ValueError("no table with a format")
        if values["format"] != FORMAT:
            raise DataError(f"{path} was written by another version of simmat; use that version, or another --out")
        validate(kind, values)
    except ValueError as error:
        remedy = remedy or f"remove {path.parent} and run the bench again"
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error
    return values


State = Literal["open", "begun", "trained", "tested", "failed", "changed"]
"""Nothing there · begun, to be resumed · trained, test split unread · tested · failed · begun with other settings."""

_NOT_THE_RESULT = set((FREE | FILES) - {"foundation"})
"""Settings that say where and how a run is done."""


@dataclass(frozen=True)
class CellFolder:
    """Paths of a cell.

    Attributes:
        root: its folder.
    """

    root: Path

    @property
    def order(self) -> Path:
        """What is to be done, json: kind, digest, settings."""
        return self.root / "cell.json"

    @property
    def config(self) -> Path:
        """The settings of the run, TOML, as `simmat train --config` reads them."""
        return self.root / "config.toml"

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.root / "run"

    @property
    def result(self) -> Path:
        """What came out, json; there once the run is done."""
        return self.root / "result.json"

    @property
    def failure(self) -> Path:
        """Why it failed, json."""
        return self.root / "failure.json"

    @property
    def clock(self) -> Path:
        """Seconds spent before an interruption, json."""
        return self.root / "clock.json"

    @property
    def log(self) -> Path:
        """What the runs printed."""
        return self.root / "log.txt"

    @property
    def lock(self) -> Path:
        """Held by the process that works here."""
        return self.root / ".lock"


@dataclass(frozen=True)
class Cell:
    """One run of a bench.

    Attributes:
        dataset: name of the data set.
        arm: name of the arm.
        foundation: name of the foundation model.
        kind: "train", or "zero-shot": the untouched model, which is only scored.
        seed: of the run.
        lr: learning rate; None is the tuner's own.
        config: settings of the run.
        root: the cell's folder.
        simulate: how the data set is made, where it is.
        weights: sha256 of the foundation model's weight file; None where it starts from random weights.
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
        """What a person calls it: data set/foundation model/arm/run."""
        return "/".join(self.root.parts[-4:])

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, as json values; defaults are left out."""
        values = self.config.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_THE_RESULT)
        simulate = self.simulate.model_dump(mode="json") if self.simulate is not None else None
        named = {"kind": self.kind, "dataset": self.dataset, "simulate": simulate, "weights": self.weights}
        return {**named, **values, "modality": "+".join(map(_sensor, modality_parts(self.config.modality)))}

    def digest(self) -> str:
        """Return the sha256 of `settings`."""
        return digest_of(self.settings())

    def state(self) -> State:
        """Return how far it is."""
        folder = self.folder
        if not folder.order.is_file():
            return "open"
        order = read_cell_file(folder.order, Order)
        if order["digest"] != self.digest():
            return "changed"
        if folder.failure.is_file():
            return "failed"
        if not folder.result.is_file():
            return "begun"
        return "tested" if read_cell_file(folder.result, Result)["test"] is not None else "trained"

    def result(self) -> dict[str, Any] | None:
        """Return what came out, or None where nothing did or it belongs to other settings."""
        if self.state() not in ("trained", "tested"):
            return None
        return read_cell_file(self.folder.result, Result)

    def changes(self) -> str:
        """Say which settings are not those it was begun with."""
        before, now = read_cell_file(self.folder.order, Order)["settings"], self.settings()
        return ", ".join(
            f"{key} = {now.get(key, 'default')}, was {before.get(key, 'default')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        )


def matches(cell: Cell, pattern: str | None) -> bool:
    """Return whether a cell's name, or a part of it, matches a shell pattern; None matches all."""
    return pattern is None or fnmatch(cell.name, f"*{pattern}*")


def digest_of(settings: Mapping[str, Any]) -> str:
    """Return the sha256 of json values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _sensor(part: str) -> str:
    """Return what a sensor is, wherever its description lies: its name, of a described one with a digest."""
    if not is_sensor_file(part):
        return part
    declaration = read_sensor(part).declaration
    return f"{declaration.name} ({digest_of(declaration.model_dump(mode='json'))[:16]})"


def write_order(cell: Cell) -> None:
    """Write down what is to be done in a cell, before it is begun."""
    order = {"format": FORMAT, "kind": cell.kind, "digest": cell.digest(), "settings": cell.settings()}
    atomic_write_json(cell.folder.order, order)

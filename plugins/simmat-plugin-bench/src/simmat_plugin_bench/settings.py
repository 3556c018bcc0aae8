"""What a bench is told: the tables of its TOML, and the figures that `score` may name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from simmat.config import TrainConfig
from simmat.documents import Document
from simmat.errors import did_you_mean

DEFAULT = "miou_object"
"""A figure of every protocol."""

_CLASS = r"iou_by_class\.-?\d+"
"""Which classes there are is known once there are scores."""


def figures_of(summary: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Go through the figures of a summary; those of a table within it as "by_size.small.miou_object"."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from figures_of(value, f"{before}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield before + name, float(value)


def unknown_figure(name: str, protocol: str) -> str:
    """Say that a protocol gives no figure of this name; "" where it gives one."""
    if name == DEFAULT:
        return ""
    # Loads torch, which a bench of the usual score need not wait for.
    from simmat.evaluation import find_protocol, possible_summary

    known = [figure for figure, _ in figures_of(possible_summary(find_protocol(protocol)))]
    if name in known or re.fullmatch(_CLASS, name):
        return ""
    return f"score = {name!r} is no figure of protocol {protocol!r}{hint(name, known)}"


def hint(name: str, known: Iterable[str]) -> str:
    """End a sentence on an unknown name: with the nearest one, or with all there are."""
    names = list(dict.fromkeys(known))
    return did_you_mean(name, names, otherwise=f". There are: {', '.join(names)}")


def unknown_names(
    wanted: Iterable[str] | None, there: Iterable[str], what: str, *, of: str = "quick is to run"
) -> Iterator[str]:
    """Say which names, by default those in `[quick]`, are of nothing here."""
    known = list(there)
    for name in wanted or ():
        if name not in known:
            yield f"{of} {name!r}, which is no {what} here{hint(name, known)}"


_BENCH_DECIDES = {"data", "out", "modality", "seed", "lr", "checkpoint"}
_NETWORK = {"foundation", "mat", "tune", "mat_options", "tune_options", "from_scratch"}
FEW = ("train_images", "train_share")
"""Settings that leave a part of the training images."""
LENGTH = {"steps", "epochs"}
"""Settings that say how long a training is; one of them at a time."""


def merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Join tables, the last one wins; what it says in epochs replaces what was said in steps."""
    values: dict[str, Any] = {}
    for table in tables:
        if table.keys() & LENGTH:
            values = {key: value for key, value in values.items() if key not in LENGTH}
        values |= table
    return values


def _listed(value: Any) -> Any:
    """Accept one value where a list of them may stand."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError("must name at least one")
    return value if isinstance(value, list | tuple) or value is None else [value]


def _one_table(value: Any) -> Any:
    """Accept one table where a list of them may stand: [grid] for [[grid]]."""
    return [value] if isinstance(value, Mapping) else value


def _named(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[^\W_][\w .,:+@%()=-]*", value):
        raise ValueError(
            "must begin with a letter or digit; of other signs blanks and . , : + @ % ( ) = - _ may follow"
        )
    return value


Name = Annotated[str, BeforeValidator(_named)]
Names = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_listed)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[tuple[Seed, ...], Field(strict=False), BeforeValidator(_listed)]
Rate = Annotated[float, Field(gt=0)]
Rates = Annotated[tuple[Rate, ...], Field(strict=False), BeforeValidator(_listed)]


class Section(Document):
    """A table of the file: fields of its own, and settings of `simmat train` that hold for it.

    Attributes:
        options: the settings of `simmat train` in this table, as they stand there.
    """

    takes: ClassVar[frozenset[str]] = frozenset()

    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _sort(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "options" in values:
            raise ValueError("has no key 'options'; settings of simmat train stand in it themselves")
        options = {key: value for key, value in values.items() if key in cls.takes and key not in cls.model_fields}
        return {key: value for key, value in values.items() if key not in options} | {"options": options}

    @classmethod
    def known_keys(cls) -> list[str]:
        """Return every key that may stand in this table, settings of `simmat train` among them."""
        return sorted((set(cls.model_fields) - {"options"}) | cls.takes)


class Simulated(Document):
    """A data set of synthetic scenes, made on the fly.

    Attributes:
        count: number of samples.
        seed: decides the scenes; two sensors with one seed see the same.
        size: width and height in pixels.
    """

    count: int = Field(ge=3)
    seed: Seed = 0
    size: Annotated[tuple[int, int], Field(strict=False)] = (256, 192)


class DataSet(Section):
    """A data set.

    Attributes:
        name: in tables and folder names.
        modality: its sensor.
        data: its folder; relative to the TOML. Either this or `simulate`.
        simulate: makes it.
        averaged: whether it is part of the mean over data sets.
        options: settings of `simmat train` for this data set, such as `regions`.
    """

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES - _NETWORK - set(FEW)

    name: Name
    modality: str
    data: Annotated[Path, Field(strict=False)] | None = None
    simulate: Simulated | None = None
    averaged: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> DataSet:
        if (self.data is None) == (self.simulate is None):
            raise ValueError("needs data, a folder, or simulate, as { count = 40, seed = 0 }")
        return self


class Grid(Section):
    """Every combination of these lists is an arm.

    Attributes:
        foundation: names of foundation models.
        mat: names of transfer layers.
        tune: names of tuners.
        train_images: numbers of training images.
        train_share: parts of the training images; 1.0 is all of them.
        seeds: one run each; by default those of the bench.
        lr: candidates, of which validation chooses; by default those of the bench.
        on: names of the data sets it runs on; by default all.
        options: settings of `simmat train` for all its arms.
    """

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES - set(FEW) - {"from_scratch"}

    foundation: Names | None = None
    mat: Names = ("mat-residual",)
    tune: Names = ("lora",)
    train_images: Annotated[tuple[int, ...], Field(strict=False), BeforeValidator(_listed)] | None = None
    train_share: Annotated[tuple[float, ...], Field(strict=False), BeforeValidator(_listed)] | None = None
    seeds: Seeds | None = None
    lr: Rates | None = None
    on: Names | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> Grid:
        if self.train_images is not None and self.train_share is not None:
            raise ValueError("has train_images and train_share, which exclude each other; use two grids")
        return self


class ArmSettings(Section):
    """One arm, spelled out.

    Attributes:
        name: in tables and folder names.
        foundation: name of its foundation model; by default that of the bench.
        steps_factor: how many times the steps (or epochs) of the others it trains.
        peer: whether it stands beside the others for comparison alone, so that no zero-shot and no from-scratch of
            its own foundation model is added.
        seeds: one run each; by default those of the bench.
        lr: candidates, of which validation chooses; by default those of the bench.
        on: names of the data sets it runs on; by default all.
        options: settings of `simmat train` for this arm.
    """

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES

    name: Name
    foundation: str | None = None
    steps_factor: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    peer: bool = False
    seeds: Seeds | None = None
    lr: Rates | None = None
    on: Names | None = None


class TrainSettings(Section):
    """Settings of `simmat train` that hold for all arms, where an arm or a data set says nothing else."""

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES - _NETWORK - set(FEW)


class Quick(TrainSettings):
    """What `--quick` leaves of a bench.

    Attributes:
        data: names of the data sets it runs on; by default all.
        arms: names of the arms it runs; by default all.
        seeds: one run each; by default those of the bench.
        options: settings of `simmat train` over those of `[train]`.
    """

    data: Names | None = None
    arms: Names | None = None
    seeds: Seeds | None = None


class BenchSettings(Document):
    """A whole bench.

    Attributes:
        title: of table and page.
        score: the figure of the table, a key of the scores `simmat eval` gives.
        foundation: the foundation model of arms that name none.
        reference: name of the arm from which the differences of the others are taken; None takes none.
        seeds: one run each.
        lr: candidates, of which validation chooses; None takes the tuner's own rate.
        scratch_lr: candidates for the from-scratch arms that are added; a rate for tuning would hold them down.
        checkpoints: foundation model -> weight file; relative to the TOML.
        keep_bundles: whether the bundles of the tested runs are kept.
        train: what holds for all arms.
        data: the data sets.
        grid: arms by combination.
        arm: arms one by one.
        quick: what `--quick` leaves; None where there is no such choice.
    """

    title: str = "Bench"
    score: str = DEFAULT
    foundation: str = "lite"
    reference: str | None = None
    seeds: Seeds = (0,)
    lr: Rates | None = None
    scratch_lr: Rates = (3e-4, 1e-3)
    checkpoints: dict[str, Annotated[Path, Field(strict=False)]] = Field(default_factory=dict)
    keep_bundles: bool = True
    train: TrainSettings = TrainSettings()
    data: Annotated[tuple[DataSet, ...], Field(strict=False, min_length=1), BeforeValidator(_one_table)]
    grid: Annotated[tuple[Grid, ...], Field(strict=False), BeforeValidator(_one_table)] = ()
    arm: Annotated[tuple[ArmSettings, ...], Field(strict=False), BeforeValidator(_one_table)] = ()
    quick: Quick | None = None

    def problems(self) -> Iterator[str]:
        """Say which names are of nothing here, and that there is nothing to train."""
        sets = [data.name for data in self.data]
        for name in sorted({name for name in sets if sets.count(name) > 1}):
            yield f"two data sets are named {name!r}; give each a name of its own"
        parts = [(f"arm {arm.name!r}", arm.on) for arm in self.arm]
        parts += [(f"grid {number}", grid.on) for number, grid in enumerate(self.grid, start=1)]
        for where, on in parts:
            yield from unknown_names(on, sets, "data set", of=f"{where} is to run on")
        if self.quick is not None:
            yield from unknown_names(self.quick.data, sets, "data set")
        if not self.grid and not self.arm:
            yield "there is nothing to train; give a [[grid]] or an [[arm]]"

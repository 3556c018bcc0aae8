"""The settings of a bench: the tables of its TOML, read with all problems in one message, and what `score` may name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from simmat.config import TrainConfig
from simmat.documents import StrictModel, parse, read_toml
from simmat.errors import ConfigError, did_you_mean
from simmat.io.paths import with_home
from simmat.sensors.options import with_absolute_files

if TYPE_CHECKING:
    from simmat.evaluation import Protocol

DEFAULT = "miou_object"
"""A metric of every protocol."""

EVERYTHING, SEMANTIC = "everything.", "semantic."
"""Beginnings of the metrics of masks without prompts: of every object, and of the class map."""
_MEASURES = ("ap", "ap50", "pq", "f1")
_UNPROMPTED = (
    *(EVERYTHING + measure for measure in _MEASURES),
    *(f"{EVERYTHING}any_class.{measure}" for measure in _MEASURES),
    f"{SEMANTIC}miou",
    f"{SEMANTIC}pixel_accuracy",
)
_CLASS = rf"(semantic\.)?iou_by_class\.-?\d+|everything\.by_class\.-?\d+\.({'|'.join(_MEASURES)})"
"""The classes are unknown until there are scores."""


def metrics_of(
    summary: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, float]]:
    """Yield name and value of each metric of a summary; names in inner tables are like "by_size.small.miou_object"."""
    for name, value in summary.items():
        if isinstance(value, Mapping):
            yield from metrics_of(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)


def unknown_metric(name: str, protocol: str) -> str:
    """Return an error if a protocol has no metric of this name, else ""."""
    if name in (DEFAULT, *_UNPROMPTED):
        return ""
    # Imported here because it loads torch, which the default score does not need.
    from simmat.evaluation import find_protocol
    from simmat.plugins.loader import installed

    metrics = [spec.name for spec in installed().all("metric") if spec.result == "mask"]
    possible = possible_summary(find_protocol(protocol), metrics)
    known = [*(figure for figure, _ in metrics_of(possible)), *_UNPROMPTED]
    if name in known or re.fullmatch(_CLASS, name):
        return ""
    return (
        f"score = {name!r} is not a metric of protocol {protocol!r}{hint(name, known)}"
    )


def possible_summary(protocol: Protocol, metrics: Iterable[str]) -> dict[str, Any]:
    """Return a summary with every figure that a protocol gives, and with metrics of masks, all of them 0."""
    from simmat.evaluation import SIZES, ObjectScore, Scores

    zero: dict[str, Any] = {
        "sample": "",
        "region": 0,
        "click_xy": (0.0, 0.0),
        "iou": 0.0,
        "predicted_iou": 0.0,
    }
    figures: dict[str, Any] = {"metrics": dict.fromkeys(metrics)}
    if protocol.grid == "original":
        figures["metrics"] = dict.fromkeys(metrics, 0.0)
    best = 0.0 if protocol.alternatives else None
    figures |= {"iou_best_predicted": best, "iou_oracle": best}
    if protocol.clicks > 1:
        figures["clicks"] = (0.0,) * protocol.clicks
    if protocol.repeats:
        draws = (0.0,) * protocol.repeats
        figures |= {
            "box": 0.0,
            "predicted_box": 0.0,
            "jittered_boxes": draws,
            "random_clicks": draws,
        }
    objects = [
        ObjectScore(**zero, class_id=1, area=low, **figures)
        for low, _ in SIZES.values()
    ]
    return Scores(tuple(objects)).summary()


def hint(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the nearest known name, or all of them."""
    names = list(dict.fromkeys(known))
    return did_you_mean(name, names, otherwise=f". Known: {', '.join(names)}")


def unknown_names(
    names: Iterable[str] | None,
    known: Iterable[str],
    what: str,
    *,
    where: str = "quick",
) -> Iterator[str]:
    """Yield an error for each name that is not known."""
    known = list(known)
    for name in names or ():
        if name not in known:
            yield f"{where} names an unknown {what} {name!r}{hint(name, known)}"


_BENCH_DECIDES = {"data", "out", "modality", "seed", "lr", "checkpoint"}
_NETWORK = {"foundation", "mat", "tune", "mat_options", "tune_options", "from_scratch"}
SUBSET_OPTIONS = ("train_images", "train_share")
"""Settings that select a part of the training images."""
LENGTH = {"steps", "epochs"}
"""Settings of the length of a training, of which only one may be set."""
STEPS = 500
"""Steps where a bench sets no length: arms with few images and with many are trained for as long."""


def merged(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Join tables, of which later ones win; epochs in one replace steps in an earlier one, and vice versa."""
    values: dict[str, Any] = {}
    for table in tables:
        if table.keys() & LENGTH:
            values = {key: value for key, value in values.items() if key not in LENGTH}
        values |= table
    return values


def _listed(value: Any) -> Any:
    """Accept a single value in place of a list."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError("must not be empty")
    return value if isinstance(value, list | tuple) or value is None else [value]


def _named(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[^\W_][\w .,:+@%()=-]*", value):
        raise ValueError(
            "must start with a letter or digit; also allowed are spaces and . , : + @ % ( ) = - _"
        )
    return value


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], Field(strict=False), BeforeValidator(_listed)]
Tables = Annotated[
    tuple[Item, ...],
    Field(strict=False),
    # [grid] for [[grid]]
    BeforeValidator(lambda value: [value] if isinstance(value, Mapping) else value),
]
Name = Annotated[str, BeforeValidator(_named)]
Names = Listed[str]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Listed[Seed]
Rates = Listed[Annotated[float, Field(gt=0)]]


class Section(StrictModel):
    """A table of the TOML with its own fields and settings of `simmat train`.

    Attributes:
        options: the settings of `simmat train` in this table, unchecked.
    """

    takes: ClassVar[frozenset[str]] = frozenset()

    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _sort(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "options" in values:
            raise ValueError(
                "has no key 'options'; write settings of simmat train directly into this table"
            )
        options = {
            key: value
            for key, value in values.items()
            if key in cls.takes and key not in cls.model_fields
        }
        return {key: value for key, value in values.items() if key not in options} | {
            "options": options
        }

    @classmethod
    def known_keys(cls) -> list[str]:
        """Return every key that this table allows, including settings of `simmat train`."""
        return sorted((set(cls.model_fields) - {"options"}) | cls.takes)


class Simulated(StrictModel):
    """A data set of synthetic scenes, simulated before the first run.

    Attributes:
        seed: seed of the scenes; two sensors with the same seed see the same scenes.
    """

    count: int = Field(ge=3)
    seed: Seed = 0
    size: Annotated[tuple[int, int], Field(strict=False)] = (256, 192)


class TrainSettings(Section):
    """Settings of `simmat train` for all arms; those of a data set or an arm take precedence."""

    takes: ClassVar[frozenset[str]] = (
        frozenset(TrainConfig.model_fields)
        - _BENCH_DECIDES
        - _NETWORK
        - set(SUBSET_OPTIONS)
    )


class DataSet(TrainSettings):
    """A data set.

    Attributes:
        data: its folder, relative to the TOML. Either this or `simulate` is given.
        averaged: whether it counts in the mean over data sets.
        options: settings of `simmat train` for this data set, such as `regions`.
    """

    name: Name
    modality: str
    data: Annotated[Path, Field(strict=False)] | None = None
    simulate: Simulated | None = None
    averaged: bool = True

    @model_validator(mode="after")
    def _one_source(self) -> DataSet:
        if (self.data is None) == (self.simulate is None):
            raise ValueError(
                "needs data, a folder, or simulate, as { count = 40, seed = 0 }"
            )
        return self


class Grid(Section):
    """Lists of which every combination is an arm.

    Attributes:
        train_share: shares of the training images; 1.0 is all.
        seeds: one run each; by default those of the bench.
        lr: learning rates, of which validation chooses one; by default those of the bench.
        on: names of its data sets; by default all.
        options: settings of `simmat train` for all its arms.
    """

    takes: ClassVar[frozenset[str]] = (
        frozenset(TrainConfig.model_fields)
        - _BENCH_DECIDES
        - set(SUBSET_OPTIONS)
        - {"from_scratch"}
    )

    foundation: Names | None = None
    mat: Names = ("mat-residual",)
    tune: Names = ("lora",)
    train_images: Listed[int] | None = None
    train_share: Listed[float] | None = None
    seeds: Seeds | None = None
    lr: Rates | None = None
    on: Names | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> Grid:
        if self.train_images is not None and self.train_share is not None:
            raise ValueError(
                "has train_images and train_share, which exclude each other; use two grids"
            )
        return self


class ArmSettings(Section):
    """A single arm.

    Attributes:
        foundation: name of its foundation model; by default that of the bench.
        steps_factor: factor on the steps or epochs of the other arms.
        peer: only a comparison: no zero-shot and no from-scratch arm is added for its foundation model.
        seeds: one run each; by default those of the bench.
        lr: learning rates, of which validation chooses one; by default those of the bench.
        on: names of its data sets; by default all.
        options: settings of `simmat train` for this arm.
    """

    takes: ClassVar[frozenset[str]] = (
        frozenset(TrainConfig.model_fields) - _BENCH_DECIDES
    )

    name: Name
    foundation: str | None = None
    steps_factor: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    peer: bool = False
    seeds: Seeds | None = None
    lr: Rates | None = None
    on: Names | None = None


class Quick(TrainSettings):
    """The part of a bench that `--quick` runs.

    Attributes:
        data: names of the data sets; by default all.
        arms: names of the arms; by default all.
        seeds: one run each; by default those of the bench.
        options: settings of `simmat train` that replace those of `[train]`.
    """

    data: Names | None = None
    arms: Names | None = None
    seeds: Seeds | None = None


class BenchSettings(StrictModel):
    """The settings of a bench.

    Attributes:
        score: the metric of the table, a key of the scores of `simmat eval`, such as "everything.ap50".
        foundation: the default foundation model of arms.
        reference: name of the arm with which the others are compared; None compares none.
        lr: learning rates, of which validation chooses one; None takes the tuner's own rate.
        scratch_lr: learning rates of the added from-scratch arms, which need higher ones than tuning.
        checkpoints: foundation model -> weight file, relative to the TOML.
        quick: the part that `--quick` runs; None if the TOML has no `[quick]`.
    """

    title: str = "Bench"
    score: str = DEFAULT
    foundation: str = "lite"
    reference: str | None = None
    seeds: Seeds = (0,)
    lr: Rates | None = None
    scratch_lr: Rates = (3e-4, 1e-3)
    checkpoints: dict[str, Annotated[Path, Field(strict=False)]] = Field(
        default_factory=dict
    )
    keep_bundles: bool = True
    train: TrainSettings = TrainSettings()
    data: Annotated[Tables[DataSet], Field(min_length=1)]
    grid: Tables[Grid] = ()
    arm: Tables[ArmSettings] = ()
    quick: Quick | None = None

    def problems(self) -> Iterator[str]:
        """Yield unknown names, and a bench without arms."""
        sets = [data.name for data in self.data]
        parts = [(f"arm {arm.name!r}", arm.on) for arm in self.arm]
        parts += [
            (f"grid {number}", grid.on)
            for number, grid in enumerate(self.grid, start=1)
        ]
        for where, on in parts:
            yield from unknown_names(on, sets, "data set", where=where)
        if self.quick is not None:
            yield from unknown_names(self.quick.data, sets, "data set")
        if not self.grid and not self.arm:
            yield "there is nothing to train; give a [[grid]] or an [[arm]]"


def read_settings(path: Path) -> BenchSettings:
    """Read a bench's TOML; paths in it are relative to its folder.

    Raises:
        ConfigError: it cannot be read or is invalid; the message holds every problem.
    """
    settings = parse(
        BenchSettings, read_toml(path, "bench", hint="give its TOML file"), str(path)
    )
    folder, data = path.absolute().parent, []
    try:
        for one in settings.data:
            place = None if one.data is None else folder / with_home(one.data)
            modality = with_absolute_files(one.modality, folder)
            data.append(one.model_copy(update={"data": place, "modality": modality}))
        checkpoints = {
            name: folder / with_home(file)
            for name, file in settings.checkpoints.items()
        }
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return settings.model_copy(update={"data": tuple(data), "checkpoints": checkpoints})


def shortened(settings: BenchSettings, path: Path) -> BenchSettings:
    """Return a bench with the data sets, seeds and settings of `[quick]`; `expand` selects its arms.

    Raises:
        ConfigError: the TOML has no `[quick]`.
    """
    quick = settings.quick
    if quick is None:
        raise ConfigError(
            f"{path}: no table [quick], which selects what --quick runs; add it, with data, arms, seeds or settings of "
            "simmat train, or leave --quick out"
        )
    changes: dict[str, object] = {
        "title": f"{settings.title}, quick",
        "train": settings.train.model_copy(
            update={"options": merged(settings.train.options, quick.options)}
        ),
        "data": tuple(
            data
            for data in settings.data
            if quick.data is None or data.name in quick.data
        ),
    }
    if quick.seeds is not None:
        own = {"seeds": None}
        changes["seeds"] = quick.seeds
        changes["grid"] = tuple(grid.model_copy(update=own) for grid in settings.grid)
        changes["arm"] = tuple(arm.model_copy(update=own) for arm in settings.arm)
    return settings.model_copy(update=changes)

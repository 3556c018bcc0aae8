"""What a bench is told: one TOML, read whole, with all its problems in one message."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from simmat.config import TrainConfig
from simmat.errors import ConfigError, all_problems, nearest
from simmat.sensor_names import with_absolute_files

_BENCH_DECIDES = {"data", "out", "modality", "seed", "lr", "checkpoint"}
_NETWORK = {"foundation", "mat", "tune", "mat_options", "tune_options", "from_scratch"}
_FEW = {"train_images", "train_share"}


def _listed(value: Any) -> Any:
    """Accept one value where a list of them may stand."""
    if isinstance(value, list | tuple) and not value:
        raise ValueError("must name at least one")
    return value if isinstance(value, list | tuple) or value is None else [value]


def _one_table(value: Any) -> Any:
    """Accept [grid] for [[grid]]."""
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


class Section(BaseModel):
    """A table of the file: fields of its own, and settings of `simmat train` that hold for it.

    Attributes:
        options: the settings of `simmat train` in this table, as they stand there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    takes: ClassVar[frozenset[str]] = frozenset()

    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _sort(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        options = {key: value for key, value in values.items() if key in cls.takes and key not in cls.model_fields}
        return {key: value for key, value in values.items() if key not in options} | {"options": options}

    @classmethod
    def names(cls) -> list[str]:
        """Return every name that may stand in this table."""
        return sorted((set(cls.model_fields) - {"options"}) | cls.takes)


class Simulated(BaseModel):
    """A data set of synthetic scenes, made on the fly.

    Attributes:
        count: number of samples.
        seed: decides the scenes; two sensors with one seed see the same.
        size: width and height in pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

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

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES - _NETWORK - _FEW

    name: Name
    modality: str
    data: Annotated[Path, Field(strict=False)] | None = None
    simulate: Simulated | None = None
    averaged: bool = True


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

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES - _FEW - {"from_scratch"}

    foundation: Names | None = None
    mat: Names = ("mat-residual",)
    tune: Names = ("lora",)
    train_images: Annotated[tuple[int, ...], Field(strict=False), BeforeValidator(_listed)] | None = None
    train_share: Annotated[tuple[float, ...], Field(strict=False), BeforeValidator(_listed)] | None = None
    seeds: Seeds | None = None
    lr: Rates | None = None
    on: Names | None = None


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
    steps_factor: Annotated[float, Field(gt=0)] = 1.0
    peer: bool = False
    seeds: Seeds | None = None
    lr: Rates | None = None
    on: Names | None = None


class TrainSettings(Section):
    """Settings of `simmat train` that hold for all arms, where an arm or a data set says nothing else."""

    takes: ClassVar[frozenset[str]] = frozenset(TrainConfig.model_fields) - _BENCH_DECIDES - _NETWORK - _FEW


class BenchSettings(BaseModel):
    """A whole bench.

    Attributes:
        title: of table and page.
        score: the figure of the table, a key of the scores `simmat eval` gives.
        foundation: the foundation model of arms that name none.
        seeds: one run each.
        lr: candidates, of which validation chooses; None takes the tuner's own rate.
        scratch_lr: candidates for the from-scratch arms that are added; a rate for tuning would hold them down.
        checkpoints: foundation model -> weight file; relative to the TOML.
        keep_bundles: whether the bundles of the tested runs are kept.
        train: what holds for all arms.
        data: the data sets.
        grid: arms by combination.
        arm: arms one by one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    title: str = "Bench"
    score: str = "miou_object"
    foundation: str = "lite"
    seeds: Seeds = (0,)
    lr: Rates | None = None
    scratch_lr: Rates = (3e-4, 1e-3)
    checkpoints: dict[str, Annotated[Path, Field(strict=False)]] = {}
    keep_bundles: bool = True
    train: TrainSettings = TrainSettings()
    data: Annotated[tuple[DataSet, ...], Field(strict=False, min_length=1)]
    grid: Annotated[tuple[Grid, ...], Field(strict=False), BeforeValidator(_one_table)] = ()
    arm: Annotated[tuple[ArmSettings, ...], Field(strict=False)] = ()


_TABLES: Mapping[str, type[BaseModel]] = {
    "train": TrainSettings,
    "data": DataSet,
    "grid": Grid,
    "arm": ArmSettings,
    "simulate": Simulated,
}


def read_settings(path: Path) -> BenchSettings:
    """Read a bench's TOML; relative paths in it are relative to its folder.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong; all of it in one message.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the TOML file of a bench") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    problems = list(_in_tables(values))
    try:
        settings = BenchSettings.model_validate(values)
    except ValidationError as error:
        problems += [_in_words(detail, values) for detail in error.errors()]
        raise problems_error(path, problems) from error
    if problems := problems + list(_across(settings)):
        raise problems_error(path, problems)
    return _absolute(settings, path.absolute().parent)


def problems_error(path: Path, problems: Sequence[str]) -> ConfigError:
    """Join what is wrong with a bench's TOML into one error, each thing said once."""
    once = list(dict.fromkeys(problems))
    if len(once) == 1:
        return ConfigError(f"{path}: {once[0]}")
    return ConfigError(all_problems(f"{path}: {len(once)} things are wrong:", once, most=40))


def _in_tables(values: Mapping[str, Any]) -> Iterator[str]:
    """Say which keys of a table do not go together, also where its values are wrong."""
    for number, data in enumerate(_tables(values, "data")):
        if ("data" in data) == ("simulate" in data):
            yield f"{_where(('data', number), values)} needs data, a folder, or simulate, as {{ count = 40, seed = 0 }}"
    for number, grid in enumerate(_tables(values, "grid")):
        if _FEW <= grid.keys():
            yield f"{_where(('grid', number), values)}: train_images and train_share exclude each other; use two grids"


def _tables(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = values.get(name, [])
    return [table for table in (found if isinstance(found, list) else [found]) if isinstance(table, Mapping)]


def _across(settings: BenchSettings) -> Iterator[str]:
    """Say what does not go together."""
    sets = [data.name for data in settings.data]
    for name in sorted({name for name in sets if sets.count(name) > 1}):
        yield f"two data sets are named {name!r}; give each a name of its own"
    parts = [(f"arm {arm.name!r}", arm.on) for arm in settings.arm]
    parts += [(f"grid {number}", grid.on) for number, grid in enumerate(settings.grid, start=1)]
    for where, on in parts:
        for name in on or ():
            if name not in sets:
                guess = nearest(name, sets)
                yield f"{where} is to run on {name!r}, which is no data set here" + (
                    f"; did you mean {guess!r}?" if guess else f". Data sets: {', '.join(sets)}"
                )
    if not settings.grid and not settings.arm:
        yield "there is nothing to train; give a [[grid]] or an [[arm]]"


def _absolute(settings: BenchSettings, folder: Path) -> BenchSettings:
    def resolved(path: Path) -> Path:
        return folder / path.expanduser()

    def placed(data: DataSet) -> DataSet:
        place = resolved(data.data) if data.data is not None else None
        return data.model_copy(update={"data": place, "modality": with_absolute_files(data.modality, folder)})

    data = tuple(placed(one) for one in settings.data)
    checkpoints = {name: resolved(path) for name, path in settings.checkpoints.items()}
    return settings.model_copy(update={"data": data, "checkpoints": checkpoints})


def _in_words(detail: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Say one pydantic error as: where, what is allowed, what was got."""
    loc, kind = detail["loc"], detail["type"]
    where = _where(loc, values)
    message = str(detail["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    if kind == "extra_forbidden":
        key, table = str(loc[-1]), _table_of(loc)
        allowed = table.names() if issubclass(table, Section) else list(table.model_fields)
        guess = nearest(key.replace("-", "_"), allowed)
        place = f" in {_where(loc[:-1], values)}" if len(loc) > 1 else ""
        return f"no setting {key!r}{place}" + (
            f"; did you mean {guess!r}?" if guess else f". Settings there: {', '.join(allowed)}"
        )
    if kind == "missing":
        place = f" in {_where(loc[:-1], values)}" if len(loc) > 1 else ""
        return f"{loc[-1]} is missing{place}"
    return f"{where} {message}, got {detail['input']!r}"


def _where(loc: Sequence[str | int], values: Any) -> str:
    """Name a place: the name of an arm or data set instead of its number, where it has one."""
    words: list[str] = []
    here = values
    for key in loc:
        here = here[key] if _has(here, key) else None
        if isinstance(key, int):
            name = here.get("name") if isinstance(here, Mapping) else None
            words[-1] += f" {name!r}" if isinstance(name, str) else f" {key + 1}"
        else:
            words.append(str(key))
    return ": ".join(words) or "the file"


def _has(here: Any, key: str | int) -> bool:
    if isinstance(here, Mapping):
        return key in here
    return isinstance(here, list) and isinstance(key, int) and key < len(here)


def _table_of(loc: Sequence[str | int]) -> type[BaseModel]:
    for key in reversed(loc[:-1]):
        if key in _TABLES:
            return _TABLES[str(key)]
    return BenchSettings

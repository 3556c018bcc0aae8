"""Reads a bench's TOML whole, with all its problems in one message; shortens it for `--quick`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from simmat.errors import ConfigError, all_problems, nearest
from simmat.files import with_home
from simmat.sensor_names import with_absolute_files
from simmat.toml_files import follows, message_of, read_toml
from simmat_plugin_bench.settings import (
    FEW,
    ArmSettings,
    BenchSettings,
    DataSet,
    Grid,
    Quick,
    Section,
    Simulated,
    TrainSettings,
    merged,
)

_TABLES: Mapping[str, type[BaseModel]] = {
    "train": TrainSettings,
    "data": DataSet,
    "grid": Grid,
    "arm": ArmSettings,
    "quick": Quick,
    "simulate": Simulated,
}


def read_settings(path: Path) -> BenchSettings:
    """Read a bench's TOML; relative paths in it are relative to its folder.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong; all of it in one message.
    """
    values = read_toml(path, "bench", hint="give the TOML file of one")
    problems = list(_in_tables(values))
    try:
        settings = BenchSettings.model_validate(values)
    except ValidationError as error:
        problems += [_in_words(detail, values) for detail in error.errors() if not follows(detail)]
        raise problems_error(path, problems) from error
    if problems := problems + list(_across(settings)):
        raise problems_error(path, problems)
    try:
        return _absolute(settings, path.absolute().parent)
    except ConfigError as error:
        raise problems_error(path, [str(error)]) from error


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
        if set(FEW) <= grid.keys():
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
    if settings.quick is not None:
        yield from unknown_names(settings.quick.data, sets, "data set")
    if not settings.grid and not settings.arm:
        yield "there is nothing to train; give a [[grid]] or an [[arm]]"


def _absolute(settings: BenchSettings, folder: Path) -> BenchSettings:
    def resolved(path: Path) -> Path:
        return folder / with_home(path)

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
    message = message_of(detail)
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
    if kind == "tuple_type" and loc[-1] in _TABLES:
        message = f"must be a list of tables, written [[{loc[-1]}]]"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "must be a table"
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


def shortened(settings: BenchSettings, path: Path) -> BenchSettings:
    """Return a bench as its table `[quick]` has it; which arms are left is decided where arms have their names.

    Raises:
        ConfigError: there is no such table.
    """
    quick = settings.quick
    if quick is None:
        raise ConfigError(
            f"{path}: there is no table [quick], which says what --quick leaves; write one, with data, arms, seeds or "
            "settings of simmat train, or leave --quick out"
        )
    changes: dict[str, object] = {
        "title": f"{settings.title}, quick",
        "train": settings.train.model_copy(update={"options": merged(settings.train.options, quick.options)}),
        "data": tuple(data for data in settings.data if quick.data is None or data.name in quick.data),
    }
    if quick.seeds is not None:
        own = {"seeds": None}
        changes["seeds"] = quick.seeds
        changes["grid"] = tuple(grid.model_copy(update=own) for grid in settings.grid)
        changes["arm"] = tuple(arm.model_copy(update=own) for arm in settings.arm)
    return settings.model_copy(update=changes)


def unknown_names(
    wanted: Iterable[str] | None, there: Iterable[str], what: str, *, of: str = "quick is to run"
) -> Iterator[str]:
    """Say which names, by default those in `[quick]`, are of nothing here."""
    known = list(dict.fromkeys(there))
    for name in wanted or ():
        if name not in known:
            guess = nearest(name, known)
            yield f"{of} {name!r}, which is no {what} here" + (
                f"; did you mean {guess!r}?" if guess else f". There: {', '.join(known)}"
            )


def is_left(arm: str, quick: Quick | None) -> bool:
    """Return whether `--quick` runs an arm of this name."""
    return quick is None or quick.arms is None or arm in quick.arms

"""Read a bench's TOML, with all its problems in one message; shorten it for `--quick`."""

from __future__ import annotations

from pathlib import Path

from simmat.documents import parse, read_toml
from simmat.errors import ConfigError
from simmat.io.files import with_home
from simmat.sensors.options import with_absolute_files
from simmat_plugin_bench.settings import BenchSettings, DataSet, merged


def read_settings(path: Path) -> BenchSettings:
    """Read a bench's TOML; paths in it are relative to its folder.

    Raises:
        ConfigError: it cannot be read or is invalid; the message holds every problem.
    """
    settings = parse(BenchSettings, read_toml(path, "bench", hint="give its TOML file"), str(path))
    try:
        return _absolute(settings, path.absolute().parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _absolute(settings: BenchSettings, folder: Path) -> BenchSettings:
    def resolved(path: Path) -> Path:
        return folder / with_home(path)

    def placed(data: DataSet) -> DataSet:
        place = resolved(data.data) if data.data is not None else None
        return data.model_copy(update={"data": place, "modality": with_absolute_files(data.modality, folder)})

    data = tuple(placed(one) for one in settings.data)
    checkpoints = {name: resolved(path) for name, path in settings.checkpoints.items()}
    return settings.model_copy(update={"data": data, "checkpoints": checkpoints})


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
        "train": settings.train.model_copy(update={"options": merged(settings.train.options, quick.options)}),
        "data": tuple(data for data in settings.data if quick.data is None or data.name in quick.data),
    }
    if quick.seeds is not None:
        own = {"seeds": None}
        changes["seeds"] = quick.seeds
        changes["grid"] = tuple(grid.model_copy(update=own) for grid in settings.grid)
        changes["arm"] = tuple(arm.model_copy(update=own) for arm in settings.arm)
    return settings.model_copy(update=changes)

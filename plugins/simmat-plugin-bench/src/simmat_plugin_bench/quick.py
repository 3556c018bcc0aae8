"""What `--quick` leaves of a bench: some data sets and arms, in short."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from simmat.errors import ConfigError, nearest
from simmat_plugin_bench.settings import BenchSettings, Quick, merged


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

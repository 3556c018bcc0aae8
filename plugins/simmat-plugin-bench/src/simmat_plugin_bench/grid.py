"""Expand the settings of a bench into arms and cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, cast

from simmat.config import TrainConfig
from simmat.documents import listed
from simmat.errors import ConfigError, SimMATError
from simmat.io.weights import sha256_of
from simmat.model_spec import complete_options
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import Registry
from simmat_plugin_bench.cells import Cell, CellFolder, CellSettings, read_cell_file
from simmat_plugin_bench.settings import (
    LENGTH,
    STEPS,
    SUBSET_OPTIONS,
    ArmSettings,
    BenchSettings,
    DataSet,
    Grid,
    merged,
    shortened,
    unknown_metric,
    unknown_names,
)

ZERO_SHOT = "zero-shot"
SCRATCH = "from scratch"


@dataclass(frozen=True)
class Arm:
    """A way to train, run on several data sets.

    Attributes:
        name: unique among the arms of its foundation model.
        options: settings of `simmat train`.
        seeds: one run each.
        rates: learning rates, of which validation chooses one; (None,) is the tuner's own.
        kind: "train", or "zero-shot" for the untrained model, which is only scored.
        steps_factor: factor on the steps of the other arms.
        peer: only a comparison, for which no reference arms are added.
    """

    name: str
    foundation: str
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    rates: tuple[float | None, ...] = (None,)
    on: tuple[str, ...] = ()
    kind: str = "train"
    steps_factor: float = 1.0
    peer: bool = False

    @property
    def subset(self) -> tuple[Any, Any]:
        """The part of the training images that is used, as (number, share); (None, None) means all."""
        share = self.options.get("train_share")
        return self.options.get("train_images"), None if share == 1 else share

    @property
    def from_scratch(self) -> bool:
        """True if its foundation model starts from random weights."""
        return bool(self.options.get("from_scratch"))


@dataclass(frozen=True)
class Bench:
    """An expanded bench.

    Attributes:
        settings: the settings from the TOML.
        path: the TOML.
        out: the bench's folder.
        arms: in the order of the table.
        cells: every seed with every learning rate. With several rates, the first seed runs all of them and the other
            seeds only the chosen one.
        no_zero_shot: foundation models without a zero-shot score -> reason.
    """

    settings: BenchSettings
    path: Path
    out: Path
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    no_zero_shot: dict[str, str]

    def cells_of(self, data: DataSet, arm: Arm) -> list[Cell]:
        """Return the cells of an arm on a data set."""
        return [
            cell
            for cell in self.cells
            if cell.dataset == data.name
            and cell.arm == arm.name
            and cell.foundation == arm.foundation
        ]

    def pairs(self) -> Iterator[tuple[DataSet, Arm]]:
        """Yield each data set with each of its arms."""
        return _pairs(self.settings, self.arms)


def expand(
    settings: BenchSettings,
    path: Path,
    out: Path,
    registry: Registry,
    *,
    quick: bool = False,
) -> Bench:
    """Expand a bench; every name and setting is checked before anything runs.

    Args:
        settings: the settings from the TOML.
        path: the TOML.
        out: the bench's folder.
        quick: expand only the part that `[quick]` selects.

    Raises:
        ConfigError: names or settings are invalid, or `[quick]` is missing; the message holds every problem.
    """
    whole = settings
    if quick:
        settings = shortened(settings, path)
    given_arms = list(_given_arms(settings))
    problems: list[str] = []
    if settings.quick is not None:
        problems += unknown_names(
            settings.quick.arms, (arm.name for arm in given_arms), "arm"
        )
        if quick and settings.quick.arms is not None:
            given_arms = [arm for arm in given_arms if arm.name in settings.quick.arms]
    no_zero_shot, unknown = _why_no_zero_shot(settings, given_arms, registry)
    problems += unknown
    arms = list(_with_references(settings, given_arms, no_zero_shot))
    problems += _shared_folders(settings, arms)
    if whole.reference is not None:
        all_arms = _with_references(whole, list(_given_arms(whole)), no_zero_shot)
        problems += unknown_names(
            [whole.reference], (arm.name for arm in all_arms), "arm", where="reference"
        )
    cells: list[Cell] = []
    problems += _setting_problems(settings, registry)
    if not problems:
        for data, arm in _pairs(settings, arms):
            try:
                cells += _cells(settings, out, data, arm, registry)
            except SimMATError as error:
                problems += [
                    f"arm {arm.name!r} on {data.name!r}: {line}"
                    for line in _lines(error)
                ]
    if quick and not problems and not cells:
        problems.append(
            "quick selects no cell: none of its arms runs on its data sets; change [quick]"
        )
    # Without cells the score is checked against one-click, the protocol with the most metrics.
    protocols = {cell.config.protocol for cell in cells} or {"one-click"}
    problems += filter(
        None,
        (unknown_metric(settings.score, protocol) for protocol in sorted(protocols)),
    )
    if problems:
        raise ConfigError(listed(str(path), problems))
    return Bench(settings, path, out, tuple(arms), tuple(cells), no_zero_shot)


def _why_no_zero_shot(
    settings: BenchSettings, arms: Sequence[Arm], registry: Registry
) -> tuple[dict[str, str], list[str]]:
    """Return foundation model -> why it has no zero-shot score, and the problems of models that are not known."""
    reasons: dict[str, str] = {}
    problems: list[str] = []
    for foundation in dict.fromkeys(
        [*(arm.foundation for arm in arms), *settings.checkpoints]
    ):
        own = [arm for arm in arms if arm.foundation == foundation]
        try:
            spec = registry.foundation(foundation, fetch=True)
        except SimMATError as error:
            problems.append(str(error) if own else f"checkpoints: {error}")
            continue
        if all(arm.peer for arm in own):
            continue
        if not spec.promptable:
            reasons[foundation] = "its decoder was never trained"
        elif spec.weights is None:
            reasons[foundation] = "it has no pretrained weights"
    return reasons, problems


def _pairs(
    settings: BenchSettings, arms: Sequence[Arm]
) -> Iterator[tuple[DataSet, Arm]]:
    return (
        (data, arm) for data in settings.data for arm in arms if data.name in arm.on
    )


def _shared_folders(settings: BenchSettings, arms: Sequence[Arm]) -> Iterator[str]:
    """Yield an error for arms that would write into the folder of another one, such as of a reference that is added."""
    taken: dict[Path, str] = {}
    for data, arm in _pairs(settings, arms):
        folder, name = _folder(data, arm), f"arm {arm.name!r} on {data.name!r}"
        if folder in taken:
            yield (
                f"{taken[folder]} and {name} would share the folder {folder}; give one another name "
                f"({ZERO_SHOT!r} and {SCRATCH!r} are those of the reference arms that are added)"
            )
        taken[folder] = name


def _folder(data: DataSet, arm: Arm) -> Path:
    """Return the folder of an arm's cells on a data set, in that of all cells."""
    return Path(slug(data.name), slug(arm.foundation), slug(arm.name))


def slug(name: str) -> str:
    """Return a name as a folder name that is valid on every file system."""
    tight = re.sub(r"\s*([+@])\s*", r"\1", name.replace("%", "pct"))
    return re.sub(r"[^\w.+@=-]+", "-", tight).strip("-")


def _given_arms(settings: BenchSettings) -> Iterator[Arm]:
    """Yield the arms of the grids, then the single ones."""

    def arm(
        table: Grid | ArmSettings,
        name: str,
        foundation: str | None,
        options: dict[str, Any],
        **more: Any,
    ) -> Arm:
        return Arm(
            name,
            foundation or settings.foundation,
            options,
            seeds=tuple(dict.fromkeys(table.seeds or settings.seeds)),
            rates=tuple(dict.fromkeys(table.lr or settings.lr or (None,))),
            on=tuple(
                data.name
                for data in settings.data
                if table.on is None or data.name in table.on
            ),
            **more,
        )

    for grid in settings.grid:
        subsets: list[dict[str, Any]] = [
            {"train_images": number} for number in grid.train_images or ()
        ]
        subsets = subsets or [
            {} if share == 1 else {"train_share": share}
            for share in grid.train_share or (1.0,)
        ]
        for foundation, mat, tune, subset in product(
            grid.foundation or (None,),
            dict.fromkeys(grid.mat),
            dict.fromkeys(grid.tune),
            subsets,
        ):
            name = f"{mat} + {tune}{_subset_name(subset)}"
            yield arm(
                grid,
                name,
                foundation,
                {**grid.options, "mat": mat, "tune": tune, **subset},
            )
    for one in settings.arm:
        options = dict(one.options)
        yield arm(
            one,
            one.name,
            one.foundation,
            options,
            steps_factor=one.steps_factor,
            peer=one.peer,
        )


def _subset_name(subset: dict[str, Any]) -> str:
    if "train_images" in subset:
        return f" @ {subset['train_images']} images"
    return f" @ {100 * subset['train_share']:g}%" if "train_share" in subset else ""


def _with_references(
    settings: BenchSettings, arms: Sequence[Arm], no_zero_shot: dict[str, str]
) -> Iterator[Arm]:
    """Yield the arms, with missing zero-shot and from-scratch arms before those of each foundation model."""
    for foundation in dict.fromkeys(arm.foundation for arm in arms):
        own = [arm for arm in arms if arm.foundation == foundation]
        compared = [arm for arm in own if not arm.peer]
        on = tuple(
            data.name
            for data in settings.data
            if any(data.name in arm.on for arm in compared)
        )
        if on and foundation not in no_zero_shot:
            yield Arm(
                ZERO_SHOT,
                foundation,
                {"mat": "zeroshot", "tune": "frozen"},
                on=on,
                kind=ZERO_SHOT,
            )
        for number, share in dict.fromkeys(arm.subset for arm in compared):
            measured = [arm for arm in compared if arm.subset == (number, share)]
            there = {
                name
                for arm in measured
                if arm.from_scratch and arm.steps_factor == 1
                for name in arm.on
            }
            places = tuple(
                name
                for name in on
                if name not in there and any(name in arm.on for arm in measured)
            )
            if not places:
                continue
            subset = {
                key: value
                for key, value in zip(SUBSET_OPTIONS, (number, share), strict=True)
                if value is not None
            }
            seeds = tuple(dict.fromkeys(seed for arm in measured for seed in arm.seeds))
            options = {
                "mat": "mat-residual",
                "tune": "full",
                "from_scratch": True,
                **subset,
            }
            yield Arm(
                SCRATCH + _subset_name(subset),
                foundation,
                options,
                seeds,
                settings.scratch_lr,
                places,
            )
        yield from sorted(own, key=lambda arm: not arm.from_scratch)


def _setting_problems(settings: BenchSettings, registry: Registry) -> Iterator[str]:
    """Yield the problems of each table by itself, before tables are combined."""
    parts: list[tuple[str, dict[str, Any]]] = [("train", settings.train.options)]
    parts += [("quick", settings.quick.options)] if settings.quick is not None else []
    parts += [(f"data {data.name!r}", data.options) for data in settings.data]
    parts += [
        (f"grid {number}", grid.options)
        for number, grid in enumerate(settings.grid, start=1)
    ]
    parts += [(f"arm {arm.name!r}", arm.options) for arm in settings.arm]
    for where, options in parts:
        try:
            needed = {"modality": "rgb", "data": Path("data"), "out": Path("out")}
            TrainConfig.model_validate({**needed, **options}, context="settings")
        except ConfigError as error:
            yield from (f"{where}: {line}" for line in _lines(error))
    for data in settings.data:
        try:
            registry.modality(data.modality)
        except SimMATError as error:
            yield f"data {data.name!r}: {error}"


def _cells(
    settings: BenchSettings, out: Path, data: DataSet, arm: Arm, registry: Registry
) -> Iterator[Cell]:
    from simmat.assemble import check_image_size

    for seed, lr in product(arm.seeds, arm.rates):
        rate = (
            ""
            if lr is None
            else f"_lr-{lr:g}"
            if float(f"{lr:g}") == lr
            else f"_lr-{lr!r}"
        )
        folder = out / "cells" / _folder(data, arm) / f"seed-{seed}{rate}"
        values = _values(settings, out, data, arm, folder) | {"seed": seed, "lr": lr}
        config = TrainConfig.model_validate(values, context="settings")
        spec = registry.foundation(config.foundation)
        complete_options(
            registry.transfer_layer(config.mat or spec.mat), config.mat_options
        )
        complete_options(registry.tuner(config.tune or spec.tune), config.tune_options)
        check_image_size(spec, config.image_size or spec.image_size)
        weights = _weights_sha256(spec, config, folder)
        yield Cell(
            data.name,
            arm.name,
            arm.foundation,
            arm.kind,
            seed,
            lr,
            config,
            folder,
            data.simulate,
            weights,
        )


def _weights_sha256(
    spec: FoundationSpec, config: TrainConfig, cell: Path
) -> str | None:
    """Return the sha256 of the weights that a run starts from, which is one of the cell's settings.

    For a missing checkpoint it is the one written in the cell: a report needs no checkpoint, and a run checks for it.
    """
    if config.from_scratch:
        return None
    if config.checkpoint is not None and config.checkpoint.is_file():
        return _file_sha256(config.checkpoint)
    settings = CellFolder(cell).settings
    if config.checkpoint is not None and settings.is_file():
        return cast(
            str | None,
            read_cell_file(settings, CellSettings)["settings"].get("weights"),
        )
    return spec.weights.sha256 if spec.weights is not None else None


_file_sha256 = cache(sha256_of)


def _values(
    settings: BenchSettings, out: Path, data: DataSet, arm: Arm, folder: Path
) -> dict[str, Any]:
    """Return the settings of one run; those of the arm replace those of the data set, which replace the common ones."""
    values: dict[str, Any] = {
        **merged(settings.train.options, data.options, arm.options),
        "foundation": arm.foundation,
        "modality": data.modality,
        "data": data.data if data.data is not None else out / "data" / slug(data.name),
        "out": folder / "run",
    }
    values.setdefault("pictures", False)
    # the compared networks must not depend on the card
    values.setdefault("heads", "prompt")
    values.setdefault("mat", "mat-residual")  # the same for every foundation model
    if not values.get("from_scratch"):
        values.setdefault("tune", "lora")
    if not values.keys() & LENGTH and values.get("protocol") != "simmat-compat":
        values["steps"] = STEPS
    if not arm.from_scratch and arm.foundation in settings.checkpoints:
        values["checkpoint"] = settings.checkpoints[arm.foundation]
    if arm.steps_factor != 1:
        plain = TrainConfig.model_validate(values)
        measure, base = (
            ("steps", plain.steps) if plain.epochs is None else ("epochs", plain.epochs)
        )
        if base == "auto":
            raise ConfigError("steps_factor needs a number of steps, got auto")
        values[measure] = max(round((base or 1) * arm.steps_factor), 1)
    return values


def _lines(error: SimMATError) -> list[str]:
    """Return the single problems of an error."""
    lines = str(error).splitlines()
    found = [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    return found or lines

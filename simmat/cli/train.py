"""`simmat train`: start or resume a training run."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from simmat.cli.options import PATH, load_registry, training_options
from simmat.config import MUTABLE_ON_RESUME, load_configs
from simmat.documents import option_name
from simmat.errors import ConfigError
from simmat.terminal import echo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simmat.callbacks import ConsoleCallback
    from simmat.config import TrainConfig
    from simmat.plugins.registry import Registry


@cloup.command()
@training_options()
@click.option(
    "--config",
    type=PATH,
    help="TOML file with the same settings; [[data]] tables are for several sensors.",
)
@click.option(
    "--resume", type=PATH, metavar="RUN", help="Resume a run; takes no other option."
)
@click.option(
    "--folds",
    type=click.IntRange(2, 999),
    metavar="K",
    help="Train K runs, OUT/fold-1 to OUT/fold-K, each validated on the images that the others train on, so that every "
    "label can be compared with a model that did not see it. A run that is there already is resumed.",
)
def command(
    config: Path | None, resume: Path | None, folds: int | None, **given: Any
) -> None:
    """Train a transfer layer and tune a foundation model on a folder of sensor images.

    The run folder gets bundle.safetensors (the best step by validation, or with --keep last the last step),
    last.safetensors (the state to resume from), config.toml (all settings), metrics.jsonl (the log) and, if a plugin
    can write it, report.html (the page of the run).
    """
    overrides = {name: value for name, value in given.items() if value is not None}
    configs = {}
    if resume is None:
        configs = load_configs(config, overrides)
    elif overrides or config is not None or folds is not None:
        extra = sorted(overrides)
        extra += ["config"] if config is not None else []
        extra += ["folds"] if folds is not None else []
        raise ConfigError(
            f"--resume takes its settings from {resume / 'config.toml'} and no other option, got "
            f"{', '.join(option_name(name) for name in extra)}; leave them out, or start a new run"
        )

    from simmat import training

    registry = load_registry()
    if resume is not None:
        _train(training.started_configs(resume), registry, resume=True)
    elif folds is None:
        _train(configs, registry)
    else:
        _train_folds(configs, folds, overrides, registry)


def _train(
    configs: Mapping[str, TrainConfig], registry: Registry, *, resume: bool = False
) -> None:
    """Train, show the progress, and say what came of it."""
    from simmat import training

    try:
        with ExitStack() as stack:
            consoles = {}
            for name in configs:
                consoles[name] = stack.enter_context(
                    training.ConsoleCallback(name or "train")
                )
            training.train_configs(configs, registry, consoles, resume=resume)
    except training.Interrupted as stopped:
        echo(stopped, err=True)
        click.get_current_context().exit(130)
    for console in consoles.values():
        _say_result(console)


def _train_folds(
    configs: Mapping[str, TrainConfig],
    count: int,
    given: Mapping[str, Any],
    registry: Registry,
) -> None:
    """Train the runs of cross-validation one after the other; those that were started are resumed."""
    from simmat import training

    if "" not in configs or configs[""].fold is not None:
        raise ConfigError(
            "--folds divides the data of one sensor into all its folds; leave out the [[data]] tables or --fold, or "
            "train a single fold with --fold"
        )
    config = configs[""]
    runs = []
    for number in range(1, count + 1):
        own = config.model_copy(
            update={
                "out": config.out / f"fold-{number}",
                "fold": f"{number}/{count}",
            }
        )
        is_started = (own.out / "config.toml").exists()
        if is_started:
            started = training.started_configs(own.out)[""]
            _check_same(own, started, given)
            own = started
        runs.append((own, is_started))
    folders = []
    for own, is_started in runs:
        echo(f"fold {own.fold}: {own.out}")
        _train({"": own}, registry, resume=is_started)
        folders.append(str(own.out))
    data = shlex.quote(str(config.data))
    echo(
        f"look for label errors with: simmat data check {data} --against {shlex.join(folders)}"
    )


def _check_same(
    own: TrainConfig, started: TrainConfig, given: Mapping[str, Any]
) -> None:
    """Refuse to resume a fold that was started with other settings than those that are given now."""
    for name in ("fold", *given):
        now = getattr(own, name)
        if name == "out" or name in MUTABLE_ON_RESUME or now == "auto":
            continue
        before = getattr(started, name)
        if now != before:
            raise ConfigError(
                f"{own.out} was started with {name} = {before}, got {now}; give the same settings to resume it, or "
                "choose another --out"
            )


def _say_result(console: ConsoleCallback) -> None:
    run = console.run
    bundle = console.bundle
    if run is None or bundle is None:  # of a process other than the main one
        return
    kept = "best bundle"
    if run.config.keep == "last":
        kept = "bundle of the last state"
    score = f"validation mIoU {console.best:.4f}"
    if console.scored_on:
        score += f" over {console.scored_on},"
    echo(f"{kept}: {bundle} ({score} at step {console.best_step})")
    reason = _no_auto_reason(bundle)
    if reason is not None:
        echo(f"no threshold for --min-score auto: {reason}")
    page = run.config.out / "report.html"
    if page.exists():
        echo(f"its page: {page}")
    words = ["simmat", "eval", str(bundle), "--data", str(run.data)]
    split = "test" if "test" in run.splits else "val"
    echo(f"score it with: {shlex.join([*words, '--split', split])}")


def _no_auto_reason(bundle: Path) -> str | None:
    """Say why a bundle has no threshold for `--min-score auto`; None if it has, or finds no objects unprompted."""
    from simmat.bundle import read_bundle_spec
    from simmat.calibration import no_auto_reason

    spec = read_bundle_spec(bundle)
    scores: Any = spec.metrics.get("val", {})
    if "everything" not in scores or "confidence" not in scores:
        return None
    found = scores["confidence"].get("object", {"objects": 0})
    return no_auto_reason(spec.calibration, found["objects"], scores["objects"])

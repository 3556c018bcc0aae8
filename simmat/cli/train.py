"""`simmat train`: start or resume a training run."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup

from simmat.cli.options import PATH, load_registry, training_options
from simmat.config import load_configs
from simmat.documents import option_name
from simmat.errors import ConfigError
from simmat.terminal import echo

if TYPE_CHECKING:
    from simmat.callbacks import ConsoleCallback


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
def command(config: Path | None, resume: Path | None, **given: Any) -> None:
    """Train a transfer layer and tune a foundation model on a folder of sensor images.

    The run folder gets bundle.safetensors (the best step by validation, or with --keep last the last step),
    last.safetensors (the state to resume from), config.toml (all settings), metrics.jsonl (the log) and, if a plugin
    can write it, report.html (the page of the run).
    """
    overrides = {name: value for name, value in given.items() if value is not None}
    configs = {}
    if resume is None:
        configs = load_configs(config, overrides)
    elif overrides or config is not None:
        extra = sorted(overrides) + (["config"] if config is not None else [])
        raise ConfigError(
            f"--resume takes its settings from {resume / 'config.toml'} and no other option, got "
            f"{', '.join(option_name(name) for name in extra)}; leave them out, or start a new run"
        )

    from simmat import training

    registry = load_registry()
    if resume is not None:
        configs = training.started_configs(resume)
    try:
        with ExitStack() as stack:
            consoles = {}
            for name in configs:
                consoles[name] = stack.enter_context(
                    training.ConsoleCallback(name or "train")
                )
            training.train_configs(
                configs, registry, consoles, resume=resume is not None
            )
    except training.Interrupted as stopped:
        echo(stopped, err=True)
        click.get_current_context().exit(130)
    for console in consoles.values():
        _say_result(console)


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

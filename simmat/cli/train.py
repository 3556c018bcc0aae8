"""`simmat train`: start or resume a training run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from simmat.cli.common import PATH, load_registry
from simmat.cli.options import config_options
from simmat.config import load_config, option_name
from simmat.errors import ConfigError
from simmat.terminal import say


@click.command()
@config_options()
@click.option("--config", type=PATH, help="TOML file with the same settings.")
@click.option("--resume", type=PATH, metavar="RUN", help="Resume a run; takes no other option.")
def command(config: Path | None, resume: Path | None, **given: Any) -> None:
    """Train a transfer layer and tune a foundation model on a folder of sensor images.

    The run folder gets the bundle with the best validation score (bundle/), the last state (last.safetensors), all
    settings (config.toml), the log (metrics.jsonl) and, with simmat-plugin-report, a page (report.html).
    """
    overrides = {name: value for name, value in given.items() if value is not None}
    if resume is None:
        settings = load_config(config, overrides)
    elif overrides or config is not None:
        extra = sorted(overrides) + (["config"] if config is not None else [])
        raise ConfigError(
            f"--resume takes its settings from {resume / 'config.toml'} and no other option, got "
            f"{', '.join(option_name(name) for name in extra)}; leave them out, or start a new run"
        )

    from simmat import training
    from simmat.training.callbacks import ConsoleCallback

    registry = load_registry()
    try:
        with ConsoleCallback() as callback:
            if resume is None:
                bundle = training.train(settings, registry, callback)
            else:
                bundle = training.resume(resume, registry, callback)
    except training.Interrupted as stopped:
        say(stopped, err=True)
        click.get_current_context().exit(130)
    if (plan := callback.plan) is not None:
        say(f"best bundle: {bundle} (validation mIoU {callback.best:.4f} at step {callback.best_step})")
        if callback.best_step == 0:
            say(
                "Warning: no step had a better validation score than the model before training (step 0); train longer "
                "(--steps) or with another learning rate (--lr)",
                err=True,
            )
        if (page := bundle.parent / "report.html").exists():
            say(f"its page: {page}")
        words = ["simmat", "eval", str(bundle), "--data", str(plan.data)]
        split = "test" if "test" in plan.splits else "val"
        say(f"score it with: {shlex.join([*words, '--split', split])}")

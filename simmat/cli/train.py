"""`simmat train`: run or resume a training."""

from __future__ import annotations

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
@click.option("--resume", type=PATH, metavar="RUN", help="Go on with a run; takes no other option.")
def command(config: Path | None, resume: Path | None, **given: Any) -> None:
    """Train a transfer layer and tune a foundation model on a folder of sensor images.

    The run folder gets the best bundle by validation (bundle/), the last state (last.safetensors),
    the resolved settings (config.toml), the log (metrics.jsonl) and pictures.
    """
    overrides = {name: value for name, value in given.items() if value is not None}
    if resume is not None and (overrides or config is not None):
        extra = sorted(overrides) + (["config"] if config is not None else [])
        raise ConfigError(
            f"--resume goes on with the settings in {resume / 'config.toml'} and takes no other option, "
            f"got {', '.join(option_name(name) for name in extra)}; leave them out, or start a new run"
        )
    if resume is None:
        settings = load_config(config, overrides)

    from simmat import training
    from simmat.training.callbacks import ConsoleCallback

    registry = load_registry()
    try:
        with ConsoleCallback() as callback:
            if resume is not None:
                bundle = training.resume(resume, registry, callback)
            else:
                bundle = training.train(settings, registry, callback)
    except training.Interrupted as stopped:
        say(str(stopped), err=True)
        click.get_current_context().exit(130)
    if callback.plan is not None:
        say(f"best bundle: {bundle} (validation mIoU {callback.best:.4f} at step {callback.best_step})")
        say(f"score it with: simmat eval {bundle} --data DIR --split test")

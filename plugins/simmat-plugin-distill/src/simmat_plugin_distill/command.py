"""`simmat distill`: train on the masks that a teacher gives another sensor's images of the same scenes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from simmat.cli.common import PATH, load_registry, progress_bar
from simmat.cli.options import config_options
from simmat.config import TrainConfig, load_config
from simmat.errors import ConfigError
from simmat.plugins.registry import Registry
from simmat.terminal import say

_OF_LABELS = ("regions", "ignore", "zero_means", "class_attribute", "heads")
"""Settings of a training that the teacher's masks decide."""


@click.command("distill")
@click.option("--teacher", required=True, metavar="NAME|BUNDLE", help="Untuned foundation model, or a bundle.")
@click.option(
    "--teacher-modality", metavar="TEXT", help="Sensor that the teacher sees; a bundle has its own.  [default: rgb]"
)
@click.option(
    "--teacher-image-size",
    type=click.IntRange(1),
    metavar="INT",
    help="Side of the teacher's input in pixels; by default the model's own.",
)
@click.option(
    "--check-alignment", is_flag=True, help="Estimate how far the two images of each pair are shifted, and warn."
)
@config_options(*(name for name in TrainConfig.model_fields if name not in _OF_LABELS))
@click.option("--config", type=PATH, help="TOML file with the settings of the training.")
def command(
    teacher: str,
    teacher_modality: str | None,
    teacher_image_size: int | None,
    check_alignment: bool,
    config: Path | None,
    **given: Any,
) -> None:
    """Train a sensor's model without labels, by a teacher that sees another sensor's images of the same scenes.

    The folder of --data holds registered pairs: images/rgb/ID.png and images/thermal/ID.tiff, or the columns id, rgb
    and thermal of a manifest.csv. No masks are needed. Where teacher and student have the same sensor, it holds images.

    The teacher's masks are made once, and kept as a data set in RUN/teacher: a stopped call can be repeated. Then the
    student trains on them as by `simmat train`, with the same options; the validation score is its agreement with the
    teacher. Without --mat and --tune, LoRA tunes it from the answers of the untuned model.
    """
    from simmat import training
    from simmat_plugin_distill.pairs import check_sizes, open_pairs, report_alignment
    from simmat_plugin_distill.teacher import load_teacher, write_masks

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "simmat distill runs in one process; make the masks without accelerate launch, then train with it: "
            "accelerate launch -m simmat train --data RUN/teacher"
        )
    registry = load_registry()
    settings = from_untuned(load_config(config, given), registry)
    if named := [name for name in _OF_LABELS if name in settings.model_fields_set]:
        raise ConfigError(f"{config}: {', '.join(named)}: the teacher's masks decide it; leave it out")
    training.check_out_outside_data(settings)
    folder = training.RunFolder(settings.out)
    folder.create()
    model = load_teacher(teacher, teacher_modality, teacher_image_size, settings, registry)
    pairs = open_pairs(settings, model.adapter, registry)
    check_sizes(pairs)
    if check_alignment:
        say(report_alignment(pairs), err=True)
    with progress_bar("teacher", "image", total=len(pairs.samples)) as bar:
        write_masks(pairs, model, folder.teacher, progress=bar.update)
    has_test = any(sample.split == "test" for sample in pairs.samples)
    del model, pairs  # the student needs the memory
    settings = settings.model_copy(update={"data": folder.teacher, "nodata": None})
    try:
        with training.ConsoleCallback() as callback:
            bundle = training.train(settings, registry, callback)
    except training.Interrupted as stopped:
        say(stopped, err=True)
        click.get_current_context().exit(130)
    say(f"best bundle: {bundle} (agreement with the teacher {callback.best:.4f} at step {callback.best_step})")
    if has_test:
        words = ["simmat", "eval", str(bundle), "--data", str(folder.teacher), "--split", "test"]
        say(f"agreement on held-back pairs: {shlex.join(words)}")


def from_untuned(settings: TrainConfig, registry: Registry) -> TrainConfig:
    """Let a student with a trained decoder start as the untuned model, where the user chooses no network.

    It keeps what it knows of objects: tuned as a whole, `lite` forgets it for the teacher's parts.
    """
    chosen = settings.mat or settings.tune or settings.init or settings.from_scratch
    if chosen or not registry.foundation(settings.foundation or registry.default_foundation(), fetch=True).promptable:
        return settings
    return settings.model_copy(update={"mat": "mat-residual", "tune": "lora"})

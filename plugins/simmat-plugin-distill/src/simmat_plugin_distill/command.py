"""`simmat distill`: train on the masks and embeddings that a teacher gives for images of the same scenes."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup
from click.core import ParameterSource

from simmat.cli.options import PATH, load_registry, training_options
from simmat.config import MAX_IMAGE_SIZE, TrainConfig, load_config
from simmat.documents import option_name
from simmat.errors import ConfigError
from simmat.io.files import require_inside
from simmat.plugins.registry import Registry
from simmat.terminal import echo, progress_bar

if TYPE_CHECKING:
    from simmat.predictor import Predictor
    from simmat_plugin_distill.matching import TeacherEmbeddings

TEACHER = "teacher"
"""Folder in that of the run: the data set of the teacher's answers."""
_OF_LABELS = ("regions", "ignore", "zero_means", "class_attribute", "heads", "fold")
"""Settings of a training that the teacher's masks decide."""
_OF_GEOMETRY = ("rotate", "paste", "crop")
"""Settings of a training that embeddings of whole images do not allow."""


@cloup.command("distill")
@cloup.option_group(
    "Teacher",
    cloup.option(
        "--teacher",
        metavar="NAME|BUNDLE",
        help="Untuned foundation model, or a bundle.",
    ),
    cloup.option(
        "--teacher-modality",
        metavar="TEXT",
        help="Sensor that the teacher sees; a bundle has its own.  [default: rgb]",
    ),
    cloup.option(
        "--teacher-image-size",
        type=click.IntRange(1, MAX_IMAGE_SIZE),
        metavar="INT",
        help="Side of the teacher's input in pixels; by default that of the student if both are the same model, else "
        "the model's own.",
    ),
    cloup.option(
        "--match",
        type=click.Choice(["auto", "masks", "embeddings", "both"]),
        default="auto",
        help="What the student learns: auto takes embeddings if an untuned teacher is the student's own foundation "
        "model, else masks.",
    ),
    cloup.option(
        "--tolerance",
        type=click.IntRange(0, 16),
        default=0,
        metavar="INT",
        help="Pixels by which the images of a pair may be shifted: this much of the borders of masks is "
        "ignored, and embeddings are compared at the best of small shifts.  [default: 0]",
    ),
    cloup.option(
        "--check-alignment",
        is_flag=True,
        help="Estimate how far the two images of each pair are shifted, and warn.",
    ),
)
@training_options(leave_out=_OF_LABELS)
@click.option(
    "--config", type=PATH, help="TOML file with the settings of the training."
)
@click.option(
    "--resume",
    type=PATH,
    metavar="RUN",
    help="Resume the training of a run; takes no other option.",
)
def command(
    resume: Path | None, teacher: str | None, config: Path | None, **given: Any
) -> None:
    """Train a sensor's model without labels, with a teacher that sees another sensor's images of the same scenes.

    The folder of --data holds pairs: images/rgb/ID.png and images/thermal/ID.tiff, or the columns id, rgb and thermal
    of a manifest.csv. They are registered, or card.toml states how they are aligned (simmat align). No masks are
    needed. If teacher and student have the same sensor, it holds only the images.

    The teacher's masks and embeddings are made once, and kept as a data set in RUN/teacher, so an interrupted command
    can be repeated. Then the student is trained as `simmat train` does, with the same options; the validation score is
    its agreement with the teacher's masks. Without --mat and --tune, its backbone is tuned, and its decoder does not
    change.
    """
    from simmat import training
    from simmat_plugin_distill.matching import NAME

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "simmat distill runs in one process; make the masks without accelerate launch, then train with it: "
            "accelerate launch -m simmat train --data RUN/teacher"
        )
    registry = load_registry()
    settings = {
        name: value for name, value in given.items() if name in TrainConfig.model_fields
    }
    if resume is not None:
        context = click.get_current_context()
        named = [
            name
            for name in context.params
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        if extra := [option_name(name) for name in named if name != "resume"]:
            raise ConfigError(
                f"--resume takes no other option, got {', '.join(extra)}; leave it out"
            )
        folder = training.RunFolder(resume)
        data = folder.root / TEACHER
        if folder.config.is_file() and not data.is_dir():
            raise ConfigError(
                f"--resume {resume}: it has no answers of a teacher ({data}); resume a run of simmat train by "
                f"`simmat train --resume {resume}`"
            )
        run = partial(training.resume, resume, registry, data=data)
    elif teacher is None:
        raise ConfigError(
            "--teacher is missing: give an untuned foundation model, or a bundle"
        )
    else:
        start = load_config(config, settings)
        if wrong := [name for name in _OF_LABELS if name in start.model_fields_set]:
            raise ConfigError(
                f"{config}: {', '.join(wrong)}: the teacher's masks determine it; leave it out"
            )
        folder = training.RunFolder(start.out)
        loss = taught(
            start,
            registry,
            teacher,
            **{name: given[name] for name in given.keys() - settings.keys()},
        )
        start = from_untuned(start, registry, decoder=loss is None or bool(loss.masks))
        data = folder.root / TEACHER
        start = start.model_copy(update={"data": data, "nodata": None})
        if loss is not None:
            start = start.model_copy(update={"loss": NAME})
        run = partial(training.train, start, registry)
    try:
        with training.ConsoleCallback() as callback:
            bundle = run(callback=callback)
    except training.Interrupted as stopped:
        echo(stopped, err=True)
        click.get_current_context().exit(130)
    echo(
        f"best bundle: {bundle} (agreement with the teacher {callback.best:.4f} at step {callback.best_step})"
    )
    if folder.page.exists():
        echo(f"its page: {folder.page}")
    if (data / "annotations" / "test.json").exists():
        words = ["simmat", "eval", str(bundle), "--data", str(data), "--split", "test"]
        echo(f"agreement on held-back pairs: {shlex.join(words)}")


def taught(
    settings: TrainConfig,
    registry: Registry,
    teacher: str,
    *,
    teacher_modality: str | None,
    teacher_image_size: int | None,
    match: str,
    tolerance: int,
    check_alignment: bool,
) -> TeacherEmbeddings | None:
    """Let the teacher find what the student learns; return the loss of embeddings, if they are matched.

    The arguments are the options of the command.
    """
    from simmat import training
    from simmat_plugin_distill.matching import (
        EMBEDDINGS,
        MATCHING,
        TeacherEmbeddings,
        student_of,
    )
    from simmat_plugin_distill.pairs import check_pairs, open_pairs, report_alignment
    from simmat_plugin_distill.teacher import load_teacher, write_masks

    training.check_out_outside_data(settings)
    folder = training.RunFolder(settings.out)
    data = folder.root / TEACHER
    folder.create(data)
    require_inside(folder.root, data)
    own, size = student_of(settings, registry)
    if teacher == own.name:
        teacher_image_size = teacher_image_size or size
    model = load_teacher(
        teacher, teacher_modality, teacher_image_size, settings, registry
    )
    pairs = open_pairs(settings, model.adapter, registry)
    check_pairs(pairs)
    if check_alignment:
        echo(report_alignment(pairs), err=True)
    settings = settings.model_copy(update={"crop": pairs.card.crop})
    match = what_to_match(match, teacher == own.name, model, settings, registry)
    registry.loss(settings.loss)
    training.choose_network(
        from_untuned(settings, registry, decoder=match != "embeddings"), registry
    )
    try:
        with progress_bar("teacher", "image", total=len(pairs.samples)) as bar:
            side = write_masks(
                pairs,
                model,
                data,
                progress=bar.update,
                embeddings=match != "masks",
                tolerance=tolerance,
            )
    except KeyboardInterrupt:
        echo(
            "the teacher's answers so far are kept; repeat the command to continue",
            err=True,
        )
        raise
    if match == "masks":
        (data / MATCHING).unlink(missing_ok=True)  # of an earlier call that was stopped
        return None
    masks = settings.loss if match == "both" else ""
    loss = TeacherEmbeddings(data / EMBEDDINGS, masks, tolerance / side)
    loss.save()
    return loss


def what_to_match(
    match: str,
    untuned: bool,
    model: Predictor,
    settings: TrainConfig,
    registry: Registry,
) -> str:
    """Resolve "auto", and check that embeddings can be compared.

    Args:
        untuned: the teacher is the student's own foundation model, untuned.
        settings: those of the student; of `crop` also what the data card says.

    Raises:
        ConfigError: they cannot, or a setting moves the student's images.
    """
    from simmat_plugin_distill.matching import shapes_differ

    if match == "masks" or (match == "auto" and not untuned):
        return "masks"
    problem = shapes_differ(model, settings, registry)
    if moved := [name for name in _OF_GEOMETRY if getattr(settings, name)]:
        problem = f"embeddings are computed from whole images, and {', '.join(moved)} would change them"
    if settings.from_scratch or settings.tune == "decoder":
        problem = "embeddings do not train a decoder, which --from-scratch and --tune decoder need"
    if match == "auto":
        if settings.init and not problem:
            problem = "the student of --init is tuned, the teacher is not"
        if problem:
            echo(f"note: the student learns masks, not embeddings: {problem}", err=True)
        return "masks" if problem else "embeddings"
    if problem:
        raise ConfigError(
            f"--match {match}: {problem}; use --match masks, or leave out what differs"
        )
    return match


def from_untuned(
    settings: TrainConfig, registry: Registry, *, decoder: bool
) -> TrainConfig:
    """Let a student with a trained decoder start as the untuned model, where the user chooses no network.

    Its decoder, which knows what an object is, stays as it is: tuned as a whole, `lite` forgets it for the teacher's
    parts. Embeddings alone do not reach it, so the tuner is then the foundation model's own.

    Args:
        decoder: the loss reaches the decoder.
    """
    if settings.mat or settings.tune or settings.init or settings.from_scratch:
        return settings
    spec = registry.foundation(
        settings.foundation or registry.default_foundation(), fetch=True
    )
    if not spec.promptable:
        return settings
    lora = {
        "tune": "lora",
        "tune_options": {"where": "backbone", **settings.tune_options},
    }
    return settings.model_copy(
        update={"mat": "mat-residual", **(lora if decoder else {"tune": spec.tune})}
    )

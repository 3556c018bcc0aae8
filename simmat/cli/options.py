"""What commands share: the registry, and options made from the fields of pydantic models."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
import cloup
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from simmat.config import CARD_FIELDS, TrainConfig
from simmat.documents import option_name
from simmat.errors import ConfigError
from simmat.plugins.loader import installed
from simmat.plugins.registry import Registry
from simmat.terminal import echo

Command = TypeVar("Command", bound=Callable[..., Any])


def load_registry() -> Registry:
    """Load the plugins; warn on standard error about those that fail, and about names that two packages claim."""
    registry = installed()
    failed = [report.name for report in registry.reports if report.error]
    if failed:
        echo(
            f"warning: failed to load: {', '.join(failed)}; see simmat plugins list",
            err=True,
        )
    for (kind, name), owners in registry.conflicts().items():
        echo(
            f"warning: {kind} {name!r} is claimed by {' and '.join(owners)}: not usable",
            err=True,
        )
    return registry


class PathType(click.Path):
    """A pathlib.Path that is not empty: an unset shell variable would otherwise mean the current folder."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """Return the path; fail for an empty text."""
        if value == "":
            self.fail(
                "the path is empty; name a file or folder, or . for the current folder",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


class FiniteRange(click.FloatRange):
    """A number within bounds, without nan and infinity, which no bound excludes."""

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the number; fail if it is not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


PATH = PathType(path_type=Path)
"""Type of the options and arguments that name a file or folder."""


def json_option(command: Command) -> Command:
    """Decorate a command with --json; its parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print json.")(command)


def config_options(
    *fields: str,
    required: tuple[str, ...] = (),
    model: type[BaseModel] = TrainConfig,
    group: cloup.OptionGroup | None = None,
) -> Callable[[Command], Command]:
    """Decorate a command with the options of the fields of a model, in this order; no fields means all.

    The parameter of a field has its name, and is None if the option is not given: then the config file or the default
    applies. `required` fields are for commands that read no config file. Tables take KEY=VALUE, repeated. The help of
    a `cloup.command` lists the options of a group together.
    """

    def decorate(command: Command) -> Command:
        for field in reversed(fields or tuple(model.model_fields)):
            option = _option(
                field,
                model.model_fields[field],
                required=field in required,
                group=group,
            )
            command = option(command)
        return command

    return decorate


TRAINING_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Options that matter first": (
        "modality", "data", "out", "regions", "foundation", "steps",
    ),
    "Data": (
        "modality_options", "channels", "min_region", "nodata", "ignore", "zero_means", "class_attribute", "crop",
        "train_images", "train_share", "fold",
    ),
    "Network": (
        "mat", "mat_options", "tune", "tune_options", "heads", "image_size", "aspect", "checkpoint", "from_scratch",
        "init", "new_sensor",
    ),
    "Prompts and augmentation": (
        "prompts_per_image", "clicks", "box_fraction", "correction_clicks", "augment", "rotate", "paste",
    ),
    "Optimisation": (
        "epochs", "batch_size", "grad_accumulation", "gradient_checkpointing", "loss", "lr", "backbone_lr_factor",
        "weight_decay", "schedule", "warmup_steps", "grad_clip", "seed",
    ),
    "Validation and results": (
        "protocol", "val_every", "val_images", "keep", "pictures", "track",
    ),
    "Machine": ("device", "precision", "workers"),
}  # fmt: skip
"""Title in the help -> settings of a training."""


def training_options(
    leave_out: Collection[str] = (),
) -> Callable[[Command], Command]:
    """Decorate a `cloup.command` with the options of a training, in groups."""

    def decorate(command: Command) -> Command:
        for title, fields in reversed(list(TRAINING_GROUPS.items())):
            kept = [field for field in fields if field not in leave_out]
            command = config_options(*kept, group=cloup.OptionGroup(title))(command)
        return command

    return decorate


def data_options(command: Command) -> Command:
    """Add the options that override the data card: how masks, missing values and large images are read."""
    return config_options(*CARD_FIELDS)(command)


def foundation_options(command: Command) -> Command:
    """Add --foundation and --checkpoint, which find a bundle's foundation model on this machine."""
    named = click.option(
        "--foundation",
        metavar="NAME",
        help="Name of the bundle's foundation model on this machine, if it differs; the weights must be the same.",
    )
    return named(config_options("checkpoint")(command))


def card_option(
    more: str = "", group: cloup.OptionGroup | None = None
) -> Callable[[Command], Command]:
    """Add --data, a data set whose card states what the files mean; `more` ends its help."""
    return cloup.option(
        "--data",
        type=PATH,
        metavar="DIR",
        help="Data set whose card.toml states what the files mean: alignment of sources, nodata, options of the "
        f"sensor.{more}",
        group=group,
    )


def source_option(description: str) -> Callable[[Command], Command]:
    """Add --source NAME=FILE, repeatable; the parameter `source` is NAME -> FILE."""
    return click.option(
        "--source",
        multiple=True,
        metavar="NAME=FILE",
        help=description,
        callback=_as_files,
    )


def _option(
    field: str, info: FieldInfo, *, required: bool, group: cloup.OptionGroup | None
) -> Callable[[Command], Command]:
    """Return what adds the option of a field to a command."""
    extra: dict[str, Any] = {}
    if isinstance(info.json_schema_extra, dict):
        extra = info.json_schema_extra
    core = _core(info.annotation)
    flag = str(extra.get("flag") or option_name(field))
    if get_origin(core) is dict:  # each KEY=VALUE is one of the plural's
        flag = flag.removesuffix("s")
    if core is bool and info.default:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    settings = _settings(core, info, extra)
    settings["help"] = info.description or ""
    if (
        core is not bool
        and isinstance(info.default, int | float | str)
        and info.default != ""
    ):
        settings["help"] += f"  [default: {info.default}]"
    if required:  # for click, a default of None would be a value
        settings["required"] = True
    else:
        settings["default"] = None
    return cloup.option(*flag.split(), field, group=group, **settings)


def _settings(core: Any, info: FieldInfo, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return how click reads the values of a field, by the type inside Annotated and Optional."""
    metavar = extra.get("metavar")
    if get_origin(core) is dict:
        return {"metavar": "KEY=VALUE", "multiple": True, "callback": _as_table}
    if core is bool:
        return {"is_flag": True}
    if core is Path:
        return {"type": PATH}
    if metavar:
        return {
            "metavar": metavar,
            **_of_metavar(core, repeat=bool(extra.get("repeat"))),
        }
    if get_origin(core) is Literal:
        words = [str(word) for word in get_args(core)]
        return {
            "type": click.Choice(words),
            "metavar": f"[{'|'.join(words)}]",
        }
    if int in get_args(core):
        words = [str(word) for part in get_args(core) for word in get_args(part)]
        return {"metavar": "|".join(["INT", *words]), "callback": _number_or_word}
    if core in (int, float):
        return {
            "type": _range(core, info.metadata),
            "metavar": "INT" if core is int else "NUMBER",
        }
    return {
        "metavar": "LIST" if get_origin(core) is tuple else "TEXT",
        "callback": _parser(info),
    }


def _number_or_word(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> int | str | None:
    """Return a whole number as such, and any other text for the model to check."""
    if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return text


def _of_metavar(core: Any, *, repeat: bool) -> dict[str, Any]:
    """Return how click reads a text that the model parses; a tuple of paths or of tuples is an option for each."""
    if get_origin(core) is not tuple:
        return {"type": click.STRING, "multiple": False}
    one = _core(get_args(core)[0])
    if one is Path:
        return {"type": PATH, "multiple": True}
    return {"type": click.STRING, "multiple": repeat or get_origin(one) is tuple}


def _parser(
    info: FieldInfo,
) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a click callback that checks and parses a text as the field does."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[info.annotation, info])  # type: ignore[arg-type,unused-ignore]

    def callback(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        if text is None:
            return None
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise click.BadParameter(f"{text!r}: {why}", ctx, param) from error

    return callback


def _core(annotation: Any) -> Any:
    """Return the type inside Annotated and Optional."""
    if get_origin(annotation) is Annotated:
        return _core(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        if len(parts) == 1:
            return _core(parts[0])
    return annotation


def _range(kind: type, bounds: Sequence[Any]) -> Any:
    """Return the type of a number within the bounds of pydantic: Ge, Gt, Le and Lt."""
    limits: dict[str, Any] = {}
    for bound in bounds:
        for name, limit in (("ge", "min"), ("gt", "min"), ("le", "max"), ("lt", "max")):
            value = getattr(bound, name, None)
            if value is not None:
                limits[limit] = value
                limits[f"{limit}_open"] = name in ("gt", "lt")
    if not limits:
        return click.INT if kind is int else click.FLOAT
    if kind is int:
        return click.IntRange(**limits)
    return FiniteRange(**limits)


def _as_files(
    ctx: click.Context, param: click.Parameter, items: tuple[str, ...]
) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for item in items:
        name, _, file = item.partition("=")
        if not name or not file or name in files:
            raise ConfigError(f"--source takes NAME=FILE, each NAME once, got {item!r}")
        files[name] = Path(file)
    return files


def _as_table(
    ctx: click.Context, param: click.Parameter, items: tuple[str, ...]
) -> dict[str, Any] | None:
    """Parse KEY=VALUE items; a value that is not TOML is text. Return None if there is no item."""
    table: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        # SENSOR.OPTION: names of sensors have hyphens
        sensor, dot, name = key.strip().rpartition(".")
        name = sensor + dot + name.replace("-", "_")
        if not equals or not name:
            raise click.BadParameter(
                f"{item!r} must be KEY=VALUE, such as rank=8 or unit=cK", ctx, param
            )
        if name in table:
            raise click.BadParameter(f"{name} is given more than once", ctx, param)
        try:
            table[name] = tomllib.loads(f"value = {text}")["value"]
        # a number with thousands of digits raises a plain ValueError
        except (ValueError, RecursionError):
            table[name] = text
    return table or None

"""Options that several commands share, made from the fields of `TrainConfig`, so that all read alike.

One place says what a field means, what it may be and what it is by default: the config.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt

from simmat.cli.common import PATH, json_option
from simmat.config import TrainConfig, option_name, parse_channels
from simmat.sensors.nodata import parse_nodata

__all__ = [
    "config_options",
    "data_options",
    "device_option",
    "foundation_options",
    "json_option",
    "sensor_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(*fields: str, required: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Decorate a command with the options of these `TrainConfig` fields, in this order; no field means all.

    An option that is not given is None, so that a config file and the defaults can fill it; the
    command's parameter has the field's name. Tables take KEY=VALUE, repeated.

    Args:
        fields: names of fields.
        required: those that must be given on the command line, for commands that read no config file.
    """

    def decorate(command: Command) -> Command:
        for field in reversed(fields or tuple(TrainConfig.model_fields)):
            command = _option(field, required=field in required)(command)
        return command

    return decorate


def sensor_options(command: Command) -> Command:
    """Add --modality, which is required, --modality-option and --channels."""
    return config_options("modality", "modality_options", "channels", required=("modality",))(command)


def data_options(command: Command) -> Command:
    """Add what says how masks and missing values are to be read; what is not given is as the data card says."""
    return config_options("regions", "min_region", "nodata", "ignore", "zero_means")(command)


def foundation_options(command: Command) -> Command:
    """Add what says where a bundle's foundation model is on this machine: --foundation and --checkpoint."""
    named = click.option(
        "--foundation",
        metavar="NAME",
        help="The bundle's foundation model by the name it has here, where that is a folder's; same weights only.",
    )
    return named(config_options("checkpoint")(command))


def device_option(command: Command) -> Command:
    """Add --device; not given is None, which means auto."""
    return config_options("device")(command)


def _option(field: str, *, required: bool) -> Callable[[Command], Command]:
    info, flag = TrainConfig.model_fields[field], option_name(field)
    # A default of None, where one is given, would satisfy click that a required option is there.
    settings: dict[str, Any] = {"help": _help(field)} | ({"required": True} if required else {"default": None})
    core = _core(info.annotation)
    if field == "channels":
        return click.option(flag, field, metavar="LIST", callback=_parsed(parse_channels), **settings)
    if field == "nodata":
        return click.option(flag, field, metavar="NUMBER", callback=_parsed(parse_nodata), **settings)
    if get_origin(core) is dict:
        settings |= {"metavar": "KEY=VALUE", "multiple": True, "callback": _as_table}
        return click.option(flag.removesuffix("s"), field, **settings)
    if core is bool:
        both = f"{flag}/--no-{flag.removeprefix('--')}" if info.default else flag
        return click.option(both, field, is_flag=True, **settings)
    return click.option(flag, field, **_kind(core, info.metadata), **settings)


def _help(field: str) -> str:
    info = TrainConfig.model_fields[field]
    shown = info.default if isinstance(info.default, int | float | str) and not isinstance(info.default, bool) else None
    text = info.description or ""
    return f"{text}  [default: {shown}]" if shown is not None else text


def _core(annotation: Any) -> Any:
    """Strip what wraps the type of a value: Annotated, and None as an alternative."""
    if get_origin(annotation) is Annotated:
        return _core(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _core(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _kind(core: Any, metadata: list[Any]) -> dict[str, Any]:
    """Return click's type and metavar for a field of this type and these bounds."""
    if get_origin(core) is Literal:
        return {"type": click.Choice(list(get_args(core)))}
    if core is Path:
        return {"type": PATH}
    if core not in (int, float):
        return {"type": click.STRING}
    low = next((m for m in metadata if isinstance(m, Ge | Gt)), None)
    high = next((m for m in metadata if isinstance(m, Le | Lt)), None)
    bounds: dict[str, Any] = {
        "min": low.ge if isinstance(low, Ge) else low.gt if isinstance(low, Gt) else None,
        "min_open": isinstance(low, Gt),
        "max": high.le if isinstance(high, Le) else high.lt if isinstance(high, Lt) else None,
        "max_open": isinstance(high, Lt),
    }
    metavar = "INT" if core is int else "NUMBER"
    if low is None and high is None:
        return {"type": core, "metavar": metavar}
    return {"type": (click.IntRange if core is int else click.FloatRange)(**bounds), "metavar": metavar}


def _parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return the callback that reads an option's text by one of the config's own parsers."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from error

    return read


def _as_table(ctx: click.Context, param: click.Parameter, items: tuple[str, ...]) -> dict[str, Any] | None:
    """Read KEY=VALUE items; a value is read as TOML, and as text where it is none. No item gives None."""
    table: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        owner, dot, name = key.strip().rpartition(".")  # SENSOR.OPTION: names of sensors have hyphens
        name = owner + dot + name.replace("-", "_")
        if not equals or not name:
            raise click.BadParameter(f"{item!r} must be KEY=VALUE, such as rank=8 or unit=cK", ctx, param)
        if name in table:
            raise click.BadParameter(f"{name} is given more than once", ctx, param)
        try:
            table[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[name] = text
    return table or None

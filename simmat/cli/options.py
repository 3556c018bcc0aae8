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

from simmat.cli.common import json_option
from simmat.config import TrainConfig, option_name, parse_channels

__all__ = [
    "checkpoint_option",
    "config_options",
    "data_options",
    "device_option",
    "json_option",
    "sensor_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])

class ChannelList(click.ParamType):
    """Channels by name or index: "0-6,8" or "red,nir"."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the list; see `simmat.config.parse_channels`."""
        if not isinstance(value, str):
            return value
        try:
            return parse_channels(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class KeyValue(click.ParamType):
    """An option of a part: "rank=8"; the value is read as TOML, and as text where it is none."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Split at the first "="."""
        if not isinstance(value, str):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r} must be KEY=VALUE, such as rank=8", param, ctx)
        name = key.strip().replace("-", "_")
        try:
            return name, tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return name, text


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
    """Add --modality, which is required, and --channels."""
    return config_options("modality", "channels", required=("modality",))(command)


def data_options(command: Command) -> Command:
    """Add what says how masks and missing values are to be read; what is not given is as the data card says."""
    return config_options("regions", "min_region", "nodata", "ignore", "zero_means")(command)


def checkpoint_option(command: Command) -> Command:
    """Add --checkpoint."""
    return config_options("checkpoint")(command)


def device_option(command: Command) -> Command:
    """Add --device; not given is None, which means auto."""
    return config_options("device")(command)


def _option(field: str, *, required: bool) -> Callable[[Command], Command]:
    info = TrainConfig.model_fields[field]
    settings: dict[str, Any] = {"default": None, "required": required, "help": _help(field)}
    if field == "channels":
        return click.option(option_name(field), field, type=ChannelList(), **settings)
    core = _core(info.annotation)
    if get_origin(core) is dict:
        singular = option_name(field).removesuffix("s")
        return click.option(singular, field, type=KeyValue(), multiple=True, callback=_as_table, **settings)
    if core is bool:
        name = option_name(field)
        both = f"{name}/--no-{name.removeprefix('--')}" if info.default else name
        return click.option(both, field, is_flag=True, **settings)
    return click.option(option_name(field), field, type=_click_type(core, info.metadata), **settings)


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


def _click_type(core: Any, metadata: list[Any]) -> click.ParamType:
    if get_origin(core) is Literal:
        return click.Choice(list(get_args(core)))
    if core is Path:
        return click.Path(path_type=Path)
    if core not in (int, float):
        return click.STRING
    low = next((m for m in metadata if isinstance(m, Ge | Gt)), None)
    high = next((m for m in metadata if isinstance(m, Le | Lt)), None)
    bounds = {
        "min": low.ge if isinstance(low, Ge) else low.gt if isinstance(low, Gt) else None,
        "min_open": isinstance(low, Gt),
        "max": high.le if isinstance(high, Le) else high.lt if isinstance(high, Lt) else None,
        "max_open": isinstance(high, Lt),
    }
    range_type: Any = click.IntRange if core is int else click.FloatRange
    made: click.ParamType = range_type(**bounds)
    return made


def _as_table(ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any] | None:
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise click.BadParameter(f"{', '.join(twice)} is given more than once", ctx, param)
    return dict(pairs) or None

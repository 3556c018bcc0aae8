"""The kinds of parts that plugins bring, what each is in Python, and what may be wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from simmat.io.frames import StackFormat
from simmat.plugin_specs import (
    FoundationFamily,
    FoundationSpec,
    FunctionSpec,
    LossSpec,
    MetricSpec,
    ResultFormat,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.sensors.adapter import ModalityAdapter

if TYPE_CHECKING:
    from simmat.callbacks import Callback


import re

from simmat.errors import shortened
from simmat.plugin_specs import API_VERSION, RECOMMENDED_SETTINGS
from simmat.plugins.hooks import OWN_COMMANDS
from simmat.sensors.adapter import Source
from simmat.types import Channel
from simmat.version import __version__

Kind = Literal[
    "modality", "foundation model", "foundation family", "transfer layer", "tuner", "loss", "metric", "model format",
    "result format", "sequence format", "stack format", "follower", "bundle source", "geo backend", "measurer",
    "command", "callbacks",
]  # fmt: skip


@dataclass(frozen=True)
class CallbackHook:
    """What makes a plugin's callbacks of a training.

    Attributes:
        name: name of the plugin's module.
        make: its hook, called with `config` and `registry`; returns the list of what each implementation returned.
    """

    name: str
    make: Callable[..., list[Iterable[Callback]]]


KINDS: Mapping[Kind, type[Any]] = {
    "modality": ModalityAdapter,
    "foundation model": FoundationSpec,
    "foundation family": FoundationFamily,
    "transfer layer": TransferLayerSpec,
    "tuner": TunerSpec,
    "loss": LossSpec,
    "metric": MetricSpec,
    "model format": FunctionSpec,
    "result format": ResultFormat,
    "sequence format": ResultFormat,
    "stack format": StackFormat,
    "follower": FunctionSpec,
    "bundle source": FunctionSpec,
    "geo backend": FunctionSpec,
    "measurer": FunctionSpec,
    "command": click.Command,
    "callbacks": CallbackHook,
}
"""Kind of part -> its type. The hook of a kind has its plural as its name: simmat_foundation_models."""


def plural(kind: Kind) -> str:
    """Return the plural of a kind: "foundation models"."""
    if kind.endswith("y"):
        return kind[:-1] + "ies"
    if kind.endswith("ss"):
        return kind + "es"
    return kind.removesuffix("s") + "s"


_WORDS = r"[a-z0-9]+([-_][a-z0-9]+)*"
_NAMES: Mapping[Kind, tuple[str, str]] = {
    "foundation model": (
        r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*",
        "letters, digits, . _ - and / between parts",
    ),
    "command": (
        f"{_WORDS}( {_WORDS})?",
        "lower case letters, digits and single - or _, or two such names",
    ),
}
"""Kind -> pattern of its names, and the same in words; all others have `_NAME`."""
_NAME = (_WORDS, "lower case letters, digits and single - or _ between them")


def item_problem(kind: Kind, item: Any) -> str:
    """Return what is wrong with an item; "" if nothing is."""
    expected = KINDS[kind]
    if isinstance(item, type) and issubclass(item, expected):
        return (
            f"got the class {item.__name__}, an instance is needed: {item.__name__}()"
        )
    if not isinstance(item, expected):
        return f"every item must be a {expected.__name__}, got {short(item)}"
    pattern, in_words = _NAMES.get(kind, _NAME)
    name = getattr(item, "name", None)
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        return f"the name of {short(item)} must be {in_words}, got {name!r}"
    if isinstance(item, click.Command):
        return _command_problem(name)
    problem = api_problem(item.api_version)
    if problem:
        return f"{kind} {name!r} {problem}"
    if not isinstance(getattr(item, "description", None), str):
        return f"{kind} {name!r} has no description; give it one line of text"
    if isinstance(item, ModalityAdapter):
        return _modality_problem(item)
    if isinstance(item, FoundationSpec):
        unknown = sorted(set(item.training) - set(RECOMMENDED_SETTINGS))
        if unknown:
            return (
                f"foundation model {name!r} recommends {', '.join(unknown)}; it may recommend "
                f"{', '.join(RECOMMENDED_SETTINGS)}"
            )
    return ""


def _command_problem(name: str) -> str:
    group, _, last = name.partition(" ")
    _, own = OWN_COMMANDS.get(group, ("", None))
    if last in (own or ()) or (not last and group in OWN_COMMANDS):
        return f"command {name!r} is one of SimMAT's own; choose another name"
    if last and own is None:
        groups = [own for own, (_, below) in OWN_COMMANDS.items() if below is not None]
        return f"command {name!r}: {group!r} is not a group of SimMAT's; groups: {', '.join(groups)}"
    return ""


def _modality_problem(adapter: ModalityAdapter) -> str:
    sources = getattr(adapter, "sources", ())
    problems = [
        _members_problem("source", sources, Source),
        _members_problem("channel", adapter.channels, Channel),
    ]
    if sources == ():
        problems.append("sources must be a tuple of at least one Source")
    found = "; ".join(filter(None, problems))
    return f"modality {adapter.name!r}: {found}" if found else ""


def _members_problem(what: str, members: object, kind: type[Any]) -> str:
    """Return what is wrong with the sources or the channels of a sensor; "" if nothing is."""
    if not isinstance(members, tuple) or not all(
        isinstance(member, kind) for member in members
    ):
        return f"{what}s must be a tuple of {kind.__name__}, got {short(members)}"
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        return f"{what} names must be unique, got {names}"
    return ""


def api_problem(stated: object) -> str:
    """Return what is wrong with the `api_version` of a spec or sensor; "" if nothing is."""
    if stated == API_VERSION:
        return ""
    newer = isinstance(stated, int) and stated > API_VERSION
    what = "simmat" if newer else "the plugin"
    return f"is written for plugin API {stated!r}, SimMAT {__version__} has API {API_VERSION}; upgrade {what}"


def short(value: object) -> str:
    """Return the type of a value and the start of its repr."""
    return f"{type(value).__name__} {shortened(repr(value))}"

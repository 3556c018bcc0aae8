"""Find plugins, load each on its own, and keep what works.

pluggy alone does not isolate: one plugin that fails to import stops the host, a misspelt hook is
silently ignored, and of two packages with one entry-point name one is dropped without a word. So
each plugin gets a manager of its own here, and what it gives is taken whole or not at all.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from typing import Any

import click
import pluggy

from simmat import __version__
from simmat.errors import ConfigError, PluginError, all_problems, did_you_mean
from simmat.plugins import hooks as hookspecs
from simmat.plugins.hooks import OWN_COMMANDS, PROJECT
from simmat.plugins.registry import Item, Kind, PluginReport, Registry
from simmat.sensors.adapter import ModalityAdapter, Source
from simmat.specs import FoundationFamily, FoundationSpec, TransferLayerSpec, TunerSpec, api_problem
from simmat.types import Channel

PLUGINS_VARIABLE = "SIMMAT_PLUGINS"
STRICT_VARIABLE = "SIMMAT_STRICT_PLUGINS"

HOOKS: Mapping[str, tuple[Kind, type[Any]]] = {
    "simmat_modalities": ("modality", ModalityAdapter),
    "simmat_foundation_models": ("foundation model", FoundationSpec),
    "simmat_foundation_families": ("foundation family", FoundationFamily),
    "simmat_transfer_layers": ("transfer layer", TransferLayerSpec),
    "simmat_tuners": ("tuner", TunerSpec),
    "simmat_commands": ("command", click.Command),
}
"""Hook -> what it brings and the type each item must have."""

_NAMES: Mapping[Kind, tuple[str, str]] = {
    "modality": (r"[a-z0-9]+(-[a-z0-9]+)*", "lower case letters, digits and single hyphens"),
    "foundation model": (r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*", "letters, digits, . _ - and / between parts"),
    "foundation family": (r"[a-z0-9]+(-[a-z0-9]+)*", "lower case letters, digits and single hyphens"),
    "transfer layer": (r"[a-z0-9]+([-_][a-z0-9]+)*", "lower case letters, digits and single hyphens or underscores"),
    "tuner": (r"[a-z0-9]+([-_][a-z0-9]+)*", "lower case letters, digits and single hyphens or underscores"),
    "command": (
        r"[a-z0-9]+(-[a-z0-9]+)*( [a-z0-9]+(-[a-z0-9]+)*)?",
        'lower case letters, digits and single hyphens, or two such words as in "data simulate"',
    ),
}


@dataclass(frozen=True)
class _Candidate:
    """A plugin before it is imported: its name, package, version, and how to import it."""

    name: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint


_BUILTIN = _Candidate(
    "builtin", PROJECT, __version__, importlib.metadata.EntryPoint("builtin", "simmat.plugins.builtin", PROJECT)
)


def load_plugins(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None, env: Mapping[str, str] | None = None
) -> Registry:
    """Load the built-in parts and every plugin, and return the names they bring.

    A plugin that fails is left out whole and its cause recorded in `Registry.reports`; the others go on.

    Args:
        entry_points: the plugins; by default all installed entry points of group "simmat".
        env: where SIMMAT_PLUGINS (unset: all plugins; empty: none; else a comma list of entry-point or package
            names) and SIMMAT_STRICT_PLUGINS (1: a plugin's failure is raised) are read; by default the process's.

    Raises:
        PluginError: under SIMMAT_STRICT_PLUGINS, the first failure.
        ConfigError: SIMMAT_STRICT_PLUGINS is neither on nor off.
    """
    environment = os.environ if env is None else env
    strict = _strict(environment)
    wanted = _wanted(environment)
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=PROJECT)
    found = sorted((_candidate(entry) for entry in entry_points), key=lambda c: (c.name, c.distribution))

    reports: list[PluginReport] = []
    items: list[tuple[Kind, Item, str]] = []
    for candidate in [_BUILTIN, *found]:
        if candidate is not _BUILTIN and wanted is not None and not _names_of(candidate) & wanted:
            reports.append(PluginReport(candidate.name, candidate.distribution, candidate.version, off=True))
            continue
        report, given = _load(candidate)
        reports.append(report)
        items += [(kind, item, report.owner) for kind, item in given]
    reports += _not_installed(wanted or frozenset(), found)
    if strict and (failed := [report for report in reports if report.error]):
        raise PluginError(f"plugin {failed[0].name!r} of {failed[0].owner or 'nobody'} failed: {failed[0].error}")
    return Registry(reports, items)


def _strict(env: Mapping[str, str]) -> bool:
    value = env.get(STRICT_VARIABLE, "").strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise ConfigError(f"{STRICT_VARIABLE} must be 1 or 0, got {value!r}")


def _wanted(env: Mapping[str, str]) -> frozenset[str] | None:
    """Return the plugins SIMMAT_PLUGINS asks for, None where it is not set."""
    value = env.get(PLUGINS_VARIABLE)
    return None if value is None else frozenset(name.strip() for name in value.split(",") if name.strip())


def _names_of(candidate: _Candidate) -> set[str]:
    return {candidate.name, candidate.distribution}


def _not_installed(wanted: Iterable[str], found: Sequence[_Candidate]) -> list[PluginReport]:
    have = {name for candidate in found for name in _names_of(candidate)}
    names = ", ".join(sorted({candidate.name for candidate in found})) or "none"
    return [
        PluginReport(name, "", "", error=f"{PLUGINS_VARIABLE} asks for it, but it is not installed; installed: {names}")
        for name in sorted(set(wanted) - have)
    ]


def _candidate(entry_point: importlib.metadata.EntryPoint) -> _Candidate:
    name = version = None
    with suppress(Exception):  # a package whose metadata is damaged may still work, and must not stop the others
        if entry_point.dist is not None:
            name, version = entry_point.dist.name, entry_point.dist.version
    return _Candidate(entry_point.name, name or "unknown package", version or "", entry_point)


def _load(candidate: _Candidate) -> tuple[PluginReport, list[tuple[Kind, Item]]]:
    """Import one plugin and take what it gives; whatever goes wrong ends in the report."""
    report = PluginReport(candidate.name, candidate.distribution, candidate.version)
    had_torch = "torch" in sys.modules
    given: list[tuple[Kind, Item]] = []
    start = time.perf_counter()
    try:
        # What a plugin prints would spoil the json on standard output.
        with redirect_stdout(sys.stderr):
            given = _take(candidate.entry_point.load(), candidate.entry_point.value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the like: a plugin must not be able to end the host
        report = replace(report, error=_cause(error))
    gives: dict[Kind, tuple[str, ...]] = {}
    for kind, item in given:
        gives[kind] = (*gives.get(kind, ()), str(item.name))
    return (
        replace(
            report,
            gives=gives,
            seconds=time.perf_counter() - start,
            imports_torch=not had_torch and "torch" in sys.modules,
        ),
        given,
    )


def _cause(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:  # an exception of the plugin's own, which fails at that, too
        said = "(it has no text)"
    return said if isinstance(error, PluginError) else f"{type(error).__name__}: {said}"


def _take(plugin: object, reference: str) -> list[tuple[Kind, Item]]:
    """Register one plugin, call its hooks and check every item.

    Raises:
        PluginError: anything about the plugin is not as it should be; all problems in one message.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    problems = _hook_problems(manager, plugin, reference)
    given: list[tuple[Kind, Item]] = []
    if not problems:
        manager.register(plugin, name=reference)
        for hook in manager.get_hookcallers(plugin) or ():
            kind, expected = HOOKS[hook.name]
            for value in _call(hook, problems):
                found = _item_problems(kind, value, expected)
                problems += [f"{hook.name}: {problem}" for problem in found]
                if not found:
                    given.append((kind, value))
    names = [(kind, str(item.name)) for kind, item in given]
    problems += [f"{kind} {name!r} is given twice" for kind, name in sorted({n for n in names if names.count(n) > 1})]
    if len(problems) == 1:
        raise PluginError(problems[0])
    if problems:
        raise PluginError(all_problems(f"{len(problems)} problems:", problems))
    return given


def _hook_problems(manager: pluggy.PluginManager, plugin: object, reference: str) -> list[str]:
    """Say what is wrong with the functions themselves: misspelt, unmarked, none at all."""
    marked = [name for name in dir(plugin) if manager.parse_hookimpl_opts(plugin, name) is not None]
    problems = []
    for name in marked:
        if name not in HOOKS:
            problems.append(f"{name} is no hook of SimMAT{did_you_mean(name, HOOKS)} Hooks: {', '.join(HOOKS)}")
    for name in HOOKS:
        if name not in marked and inspect.isroutine(getattr(plugin, name, None)):
            problems.append(f"{name} is not marked as a hook; put @simmat.hookimpl above it")
    if not marked and not problems:
        problems.append(f"{reference} has no hook; define one of {', '.join(HOOKS)} under @simmat.hookimpl")
    return problems


def _call(hook: pluggy.HookCaller, problems: list[str]) -> list[Any]:
    """Call one plugin's hook and list what it gives; a value that is no series of items becomes a problem."""
    answers = hook()
    if not answers:
        problems.append(f"{hook.name} returned None; return a list, which may be empty")
        return []
    if isinstance(answers[0], str | bytes | Mapping) or not isinstance(answers[0], Iterable):
        problems.append(f"{hook.name} must return a list of items, got {_short(answers[0])}")
        return []
    return list(answers[0])


def _item_problems(kind: Kind, item: Any, expected: type[Any]) -> list[str]:
    if isinstance(item, type) and issubclass(item, expected):
        return [f"got the class {item.__name__}, an instance is needed: {item.__name__}()"]
    if not isinstance(item, expected):
        return [f"every item must be a {expected.__name__}, got {_short(item)}"]
    pattern, in_words = _NAMES[kind]
    name = getattr(item, "name", None)
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        return [f"the name of {_short(item)} must be {in_words}, got {name!r}"]
    if isinstance(item, click.Command):
        return _command_problems(name)
    if problem := api_problem(item.api_version):
        return [f"{kind} {name!r} {problem}"]
    if not isinstance(getattr(item, "description", None), str):
        return [f"{kind} {name!r} has no description; give it one line of text"]
    return _modality_problems(item) if isinstance(item, ModalityAdapter) else []


def _command_problems(name: str) -> list[str]:
    group, _, last = name.partition(" ")
    if last in OWN_COMMANDS.get(group, ()) or (not last and group in OWN_COMMANDS):
        return [f"command {name!r} is one of SimMAT's own; choose another name"]
    if last and not OWN_COMMANDS.get(group):
        groups = [own for own, below in OWN_COMMANDS.items() if below]
        return [f"command {name!r}: {group!r} is not a group of SimMAT's; groups: {', '.join(groups)}"]
    return []


def _modality_problems(adapter: ModalityAdapter) -> list[str]:
    who = f"modality {adapter.name!r}"
    problems = []
    sources, channels = getattr(adapter, "sources", ()), adapter.channels
    if not isinstance(sources, tuple) or not sources or not all(isinstance(s, Source) for s in sources):
        problems.append(f"{who}: sources must be a tuple of at least one Source, got {_short(sources)}")
    elif len({source.name for source in sources}) != len(sources):
        problems.append(f"{who}: source names must be unique, got {[source.name for source in sources]}")
    if not isinstance(channels, tuple) or not all(isinstance(c, Channel) for c in channels):
        problems.append(f"{who}: channels must be a tuple of Channel, got {_short(channels)}")
    elif len({channel.name for channel in channels}) != len(channels):
        problems.append(f"{who}: channel names must be unique, got {[channel.name for channel in channels]}")
    return problems


def _short(value: object) -> str:
    """Name a value of any kind in a few words; a plugin's own __repr__ is not trusted to work."""
    try:
        text = repr(value)
    except Exception:
        text = "a value that cannot be shown"
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"

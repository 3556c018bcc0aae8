"""Load what is installed: every plugin by itself, so that one that fails is left out and the others stay.

pluggy alone does not isolate: one plugin that fails to import stops the host, a misspelt hook is silently ignored, and
of two packages with the same entry-point name one is silently dropped. So each plugin gets a manager of its own here,
and either everything that it gives is taken, or nothing.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import cache
from typing import Any

import pluggy

from simmat.errors import PluginError, all_problems, did_you_mean
from simmat.io import frames
from simmat.plugins import hooks as hookspecs
from simmat.plugins.hooks import PROJECT
from simmat.plugins.kinds import KINDS, CallbackHook, Kind, item_problem, plural, short
from simmat.plugins.registry import PluginReport, Registry
from simmat.version import __version__

PLUGINS_VARIABLE = "SIMMAT_PLUGINS"
STRICT_VARIABLE = "SIMMAT_STRICT_PLUGINS"
BUILTIN = importlib.metadata.EntryPoint("builtin", "simmat.plugins.builtin", PROJECT)
"""SimMAT's own parts, which are always loaded first."""

HOOKS: Mapping[str, Kind] = {
    f"simmat_{plural(kind).replace(' ', '_')}": kind for kind in KINDS
}
"""Hook -> the kind of what it brings; `simmat_callbacks` is called when a training starts."""


def load_plugins(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    env: Mapping[str, str] | None = None,
) -> Registry:
    """Load the built-in parts and all plugins.

    A plugin that fails is left out as a whole, and `Registry.reports` states why.

    Args:
        entry_points: the plugins; by default all installed entry points of group "simmat".
        env: environment variables, by default those of the process. SIMMAT_PLUGINS is a comma list of entry-point or
            package names to load: unset loads all, empty none. SIMMAT_STRICT_PLUGINS=1 raises a plugin's failure.

    Raises:
        PluginError: under SIMMAT_STRICT_PLUGINS, the first failure.
    """
    env = os.environ if env is None else env
    listed = env.get(PLUGINS_VARIABLE)
    wanted = (
        None if listed is None else {name.strip() for name in listed.split(",")} - {""}
    )
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=PROJECT)
    found = sorted(
        ((describe_entry(entry), entry) for entry in entry_points),
        key=lambda p: (p[0].name, p[0].distribution),
    )

    loaded = [_load(PluginReport(BUILTIN.name, PROJECT, __version__), BUILTIN)]
    for report, entry in found:
        off = wanted is not None and wanted.isdisjoint(
            (report.name, report.distribution)
        )
        loaded.append((replace(report, off=True), []) if off else _load(report, entry))
    reports = [report for report, _ in loaded]
    reports += _not_installed(wanted or set(), [report for report, _ in found])
    strict = env.get(STRICT_VARIABLE, "").lower() in ("1", "true", "yes", "on")
    if strict and (failed := [report for report in reports if report.error]):
        raise PluginError(
            f"plugin {failed[0].name!r} of {failed[0].owner or 'nobody'} failed: {failed[0].error}"
        )
    items = []
    for report, given in loaded:
        for kind, item in given:
            items.append((kind, item, report.owner))
    return Registry(reports, items)


def _not_installed(
    wanted: set[str], found: Sequence[PluginReport]
) -> list[PluginReport]:
    installed = ", ".join(sorted({report.name for report in found})) or "none"
    error = (
        f"{PLUGINS_VARIABLE} names it, but it is not installed; installed: {installed}"
    )
    missing = (
        wanted
        - {report.name for report in found}
        - {report.distribution for report in found}
    )
    return [PluginReport(name, "", "", error=error) for name in sorted(missing)]


def describe_entry(entry_point: importlib.metadata.EntryPoint) -> PluginReport:
    """Return the report of a plugin that is not loaded yet."""
    name = version = None
    # a package with damaged metadata may still work, and must not stop the others
    with suppress(Exception):
        if entry_point.dist is not None:
            name = entry_point.dist.name
            version = entry_point.dist.version
    return PluginReport(entry_point.name, name or "unknown package", version or "")


def _load(
    report: PluginReport, entry_point: importlib.metadata.EntryPoint
) -> tuple[PluginReport, list[tuple[Kind, Any]]]:
    """Import a plugin and take what it gives; return it with the completed report."""
    given: list[tuple[Kind, Any]] = []
    error = ""
    try:
        # what a plugin prints would spoil the json on standard output
        with redirect_stdout(sys.stderr):
            given = _take(entry_point.load(), entry_point.value)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # SystemExit too: a plugin must not end the host
        if isinstance(failure, PluginError):
            error = str(failure)
        else:
            error = f"{type(failure).__name__}: {failure}"
    gives: dict[Kind, tuple[str, ...]] = {}
    for kind, item in given:
        gives[kind] = (*gives.get(kind, ()), str(item.name))
    return replace(report, gives=gives, error=error), given


def _take(plugin: object, reference: str) -> list[tuple[Kind, Any]]:
    """Register a plugin, call its hooks and check every item."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    problems = _hook_problems(manager, plugin, reference)
    given: list[tuple[Kind, Any]] = []
    if not problems:
        manager.register(plugin, name=reference)
        for hook in manager.get_hookcallers(plugin) or ():
            kind = HOOKS[hook.name]
            if kind == "callbacks":
                given.append((kind, CallbackHook(reference, hook)))
                continue
            for item in _call(hook, problems):
                problem = item_problem(kind, item)
                if problem:
                    problems.append(f"{hook.name}: {problem}")
                else:
                    given.append((kind, item))
    names = [(kind, str(item.name)) for kind, item in given]
    problems += [
        f"{kind} {name!r} is given twice"
        for kind, name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        several = f"{len(problems)} problems:"
        raise PluginError(
            problems[0] if len(problems) == 1 else all_problems(several, problems)
        )
    return given


def _hook_problems(
    manager: pluggy.PluginManager, plugin: object, reference: str
) -> list[str]:
    """List hooks that are misspelt or not marked, and a plugin without any."""
    marked = [
        name
        for name in dir(plugin)
        if manager.parse_hookimpl_opts(plugin, name) is not None
    ]
    problems = []
    for name in marked:
        if name not in HOOKS:
            problems.append(
                f"{name} is not a hook of SimMAT{did_you_mean(name, HOOKS)} Hooks: {', '.join(HOOKS)}"
            )
    for name in HOOKS:
        if name not in marked and inspect.isroutine(getattr(plugin, name, None)):
            problems.append(
                f"{name} is not marked as a hook; put @simmat.hookimpl above it"
            )
    if not marked and not problems:
        problems.append(
            f"{reference} has no hook; define one of {', '.join(HOOKS)} under @simmat.hookimpl"
        )
    return problems


def _call(hook: pluggy.HookCaller, problems: list[str]) -> list[Any]:
    """Call a plugin's hook and return its items; a value that is not a list of items is added to `problems`."""
    answers = hook()
    if not answers:
        problems.append(f"{hook.name} returned None; return a list, which may be empty")
        return []
    if isinstance(answers[0], str | bytes | Mapping) or not isinstance(
        answers[0], Iterable
    ):
        problems.append(
            f"{hook.name} must return a list of items, got {short(answers[0])}"
        )
        return []
    return list(answers[0])


def installed() -> Registry:
    """Return the registry of what is installed, loaded once in a process for a value of SIMMAT_PLUGINS."""
    return _installed(os.environ.get(PLUGINS_VARIABLE))


@cache
def _installed(_plugins: str | None) -> Registry:
    return load_plugins()


# `io` reads them and knows no plugins
frames.plugin_formats = lambda: installed().all("stack format")

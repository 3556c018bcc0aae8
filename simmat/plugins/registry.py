"""What is installed: every plugin, loaded in isolation, and what it brings, by kind and name.

pluggy alone does not isolate: one plugin that fails to import stops the host, a misspelt hook is silently ignored, and
of two packages with the same entry-point name one is silently dropped. So each plugin gets a manager of its own here,
and either everything that it gives is taken, or nothing.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import pluggy

from simmat.errors import (
    ConfigError,
    PluginError,
    SimMATError,
    SpecError,
    UnknownNameError,
    all_problems,
    did_you_mean,
    nearest,
    shortened,
    unknown_name,
)
from simmat.io import frames
from simmat.io.frames import StackFormat
from simmat.plugin_specs import (
    API_VERSION,
    RECOMMENDED_SETTINGS,
    FoundationFamily,
    FoundationSpec,
    FunctionSpec,
    LossSpec,
    MetricSpec,
    ResultFormat,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.plugins import hooks as hookspecs
from simmat.plugins.hooks import OWN_COMMANDS, PROJECT
from simmat.sensors.adapter import ModalityAdapter, Source
from simmat.sensors.options import is_sensor_file, modality_parts, options_by_sensor
from simmat.types import Channel
from simmat.version import __version__

if TYPE_CHECKING:
    from simmat.callbacks import Callback
    from simmat.sensors.sensor_toml import SensorDefinition

Kind = Literal[
    "modality", "foundation model", "foundation family", "transfer layer", "tuner", "loss", "metric", "model format",
    "result format", "sequence format", "stack format", "follower", "bundle source", "geo backend", "command",
    "callbacks",
]  # fmt: skip

Modality = str | ModalityAdapter | type[ModalityAdapter]
"""A sensor in Python: its name, an adapter, or its class."""

NAMES = "simmat.names"
"""Entry-point group of the names that a package brings, which are read without an import of the package."""


@dataclass(frozen=True)
class PluginReport:
    """What became of one plugin.

    Attributes:
        distribution: the package it comes from; "simmat" for the built-in parts.
        gives: kind -> names; empty if it failed.
        error: why it failed; empty if it did not.
        off: SIMMAT_PLUGINS leaves it out.
    """

    name: str
    distribution: str
    version: str
    gives: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)
    error: str = ""
    off: bool = False

    @property
    def owner(self) -> str:
        """The package and version, for messages."""
        return f"{self.distribution} {self.version}".strip()


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


def packages_declaring(name: str) -> set[str]:
    """Return the installed packages that declare a name; FAMILY/MODEL is a name of its family's package."""
    family = name.partition("/")[0]
    found = set()
    for entry in importlib.metadata.entry_points(group=NAMES):
        if entry.name in (name, family) and entry.dist is not None:
            found.add(entry.dist.name)
    return found


class Registry:
    """All installed parts by kind and name, as `load_plugins` builds it.

    A getter raises UnknownNameError for a name that nothing installed has, and PluginError for one that two packages
    claim.

    Attributes:
        reports: one of each plugin, the built-in parts first.
    """

    def __init__(
        self, reports: Sequence[PluginReport], items: Iterable[tuple[Kind, Any, str]]
    ) -> None:
        """Take (kind, item, owner) of every plugin; a name may have several owners."""
        self.reports = tuple(reports)
        self._claims: dict[Kind, dict[str, list[tuple[Any, str]]]] = {
            kind: {} for kind in KINDS
        }
        for kind, item, owner in items:
            self._claims[kind].setdefault(str(item.name), []).append((item, owner))
        self._of_family: dict[str, FoundationSpec] = {}

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of a kind that one package claims, sorted; without the models of families."""
        return tuple(
            sorted(
                name for name, claims in self._claims[kind].items() if len(claims) == 1
            )
        )

    def modality(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        channels: Sequence[str | int] | None = None,
        sensor_definitions: Iterable[SensorDefinition] = (),
    ) -> ModalityAdapter:
        """Return the adapter of a sensor, or the composition of several joined by "+".

        Args:
            name: each part is the name of a sensor, or the path of the `sensor.toml` that describes one.
            options: options of the sensors, see `simmat.sensors.options.options_by_sensor`.
            channels: names, 0-based indices or wavelengths of the channels to use; None for all.
            sensor_definitions: sensors that take precedence over installed ones of that name: those a bundle carries.

        Raises:
            ConfigError: the composition is empty or repeats a part, or a description or an option is wrong.
        """
        parts = modality_parts(name)
        if not all(parts):
            raise ConfigError(
                f"modality {name!r} has an empty part; write for example rgb+thermal"
            )
        declared = {definition.name: definition for definition in sensor_definitions}
        adapters = [self._adapter(part, declared.get(part)) for part in parts]
        names = [adapter.name for adapter in adapters]
        by_sensor = options_by_sensor(options or {}, names)
        adapters = [adapter.with_options(by_sensor) for adapter in adapters]
        if len(adapters) == 1 and channels is None:
            return adapters[0]
        from simmat.sensors.composed_modality import ComposedModality

        return ComposedModality(adapters, channels)

    def with_modality(self, modality: Modality | None) -> tuple[Registry, str | None]:
        """Return a registry that knows a sensor, which replaces an installed one of its name; and the sensor's name.

        Raises:
            SpecError: the adapter is wrong, as one of a plugin may be.
        """
        if modality is None or isinstance(modality, str):
            return self, modality
        adapter = modality() if isinstance(modality, type) else modality
        problem = _item_problem("modality", adapter)
        if problem:
            raise SpecError(problem)
        modalities = {**self._claims["modality"], adapter.name: [(adapter, "caller")]}
        changed = copy(self)
        changed._claims = {**self._claims, "modality": modalities}
        return changed, adapter.name

    def foundation(self, name: str, *, fetch: bool = False) -> FoundationSpec:
        """Return a foundation model; its name may be FAMILY/MODEL.

        Args:
            fetch: the family may ask a server about the model; only for a name that the user gave.

        Raises:
            UnknownNameError: there is no such model; it names the nearest.
            SimMATError: the library behind the family cannot be imported, or fails.
        """
        if not self._is_of_family(name):
            return cast(FoundationSpec, self.get("foundation model", name))
        if name not in self._of_family:
            self._of_family[name] = self._model_of_family(name, fetch=fetch)
        return self._of_family[name]

    def models_of_family(self, name: str) -> dict[str, str]:
        """Return full name -> one line about it, for every model that a family lists.

        Raises:
            SimMATError: the library behind it cannot be imported, or fails.
        """
        family = self.get("foundation family", name)
        listed = _call_family(family, family.models)
        if not isinstance(listed, Mapping):
            raise PluginError(
                f"{family.models} must return a table of names, got {type(listed).__name__}"
            )
        return {f"{name}/{model}": str(line) for model, line in listed.items()}

    def _model_of_family(self, name: str, *, fetch: bool) -> FoundationSpec:
        family_name, _, model = name.partition("/")
        family: FoundationFamily = self.get("foundation family", family_name)
        reference = family.spec if fetch else family.local_spec or family.spec
        spec = _call_family(family, reference, model)
        if spec is None:
            known = list(self.models_of_family(family_name))
            raise UnknownNameError(
                f"no foundation model {name!r}{did_you_mean(name, known)} "
                f"`simmat foundations list {family_name}/` shows all {len(known)}"
            )
        if not isinstance(spec, FoundationSpec) or spec.name != name:
            raise PluginError(
                f"{reference} must return a FoundationSpec named {name!r}, got {_short(spec)}"
            )
        problem = _api_problem(spec.api_version)
        if problem:
            raise PluginError(f"foundation model {name!r} {problem}")
        return spec

    def default_foundation(self) -> str:
        """Return the name of the foundation model that is used if none is named: the smallest that is ready to use.

        That is one with a trained decoder and its weights in an installed package.

        Raises:
            ConfigError: none is ready.
        """
        specs: list[FoundationSpec] = self.all("foundation model")
        packaged = []
        for spec in specs:
            if spec.promptable and spec.weights and spec.weights.path is not None:
                packaged.append((spec.weights.size_bytes, spec.name))
        if packaged:
            return min(packaged)[1]
        raise ConfigError(
            "--foundation is missing, and none of the installed models can be used without a download; choose one "
            f"({', '.join(spec.name for spec in specs)}), or install a package that brings one, see SimMAT's README"
        )

    def transfer_layer(self, name: str) -> TransferLayerSpec:
        """Return a transfer layer."""
        return cast(TransferLayerSpec, self.get("transfer layer", name))

    def tuner(self, name: str) -> TunerSpec:
        """Return a tuner."""
        return cast(TunerSpec, self.get("tuner", name))

    def loss(self, name: str) -> LossSpec:
        """Return a loss."""
        return cast(LossSpec, self.get("loss", name))

    def all(self, kind: Kind) -> list[Any]:
        """Return the parts of a kind, by `names`."""
        return [self.get(kind, name) for name in self.names(kind)]

    def conflicts(self) -> dict[tuple[Kind, str], tuple[str, ...]]:
        """Return (kind, name) -> packages of every name that more than one package claims."""
        found = {}
        for kind, by_name in self._claims.items():
            for name, claims in sorted(by_name.items()):
                if len(claims) > 1:
                    found[kind, name] = tuple(owner for _, owner in claims)
        return found

    def owner(self, kind: Kind, name: str) -> str:
        """Return the package and version that bring a name."""
        if kind == "foundation model" and self._is_of_family(name):
            kind = "foundation family"
            name = name.partition("/")[0]
        self.get(kind, name)
        return self._claims[kind][name][0][1]

    def _is_of_family(self, name: str) -> bool:
        """Return True for FAMILY/MODEL of an installed family, unless a plugin has a model with exactly that name."""
        family, _, model = name.partition("/")
        of_family = bool(model) and family in self._claims["foundation family"]
        return of_family and name not in self._claims["foundation model"]

    def _adapter(
        self, part: str, definition: SensorDefinition | None
    ) -> ModalityAdapter:
        if definition is not None or is_sensor_file(part):
            from simmat.sensors.sensor_toml import TomlModality, read_sensor

            if definition is not None:
                return TomlModality(definition)
            return read_sensor(part)
        return cast(ModalityAdapter, self.get("modality", part))

    def get(self, kind: Kind, name: str) -> Any:
        """Return a part of any kind."""
        claims = self._claims[kind].get(name, [])
        if not claims:
            names = list(self.names(kind))
            if kind == "foundation model":
                names += [
                    f"{family}/NAME" for family in self.names("foundation family")
                ]
            raise unknown_name(kind, name, names, hint=self.hint(kind, name, names))
        if len(claims) > 1:
            owners = " and ".join(owner for _, owner in claims)
            raise PluginError(
                f"{kind} {name!r} is claimed by {owners}; uninstall one of them, or list the plugins to load in "
                "SIMMAT_PLUGINS"
            )
        return claims[0][0]

    def hint(self, kind: Kind, name: str, names: Iterable[str]) -> str:
        """Return what may help with an unknown name of a kind: plugins that are not here, or failed.

        No package name is made up from it: whoever registered such a package could run code on users' machines.
        """
        known = self._declared(name)
        if known:
            return ". ".join(known)
        hints = []
        if kind == "result format" and not self.names("geo backend"):
            hints.append("GeoTIFF, GeoPackage and GeoJSON: pip install 'simmat[geo]'")
        elif not nearest(name, names):
            hints.append("A plugin may bring it; SimMAT's README lists them")
        failed = [report.name for report in self.reports if report.error]
        if failed:
            hints.append(
                f"Failed to load: {', '.join(failed)}; see simmat plugins list"
            )
        off = [report.name for report in self.reports if report.off]
        if off:
            hints.append(f"Left out by SIMMAT_PLUGINS: {', '.join(off)}")
        return ". ".join(hints)

    def _declared(self, name: str) -> list[str]:
        """Say which plugins that are not loaded declare a name, and why they are not."""
        packages = packages_declaring(name)
        said = []
        for report in self.reports:
            if report.distribution not in packages:
                continue
            if report.error:
                said.append(
                    f"{report.owner} brings it, but failed to load; see simmat plugins list"
                )
            elif report.off:
                said.append(
                    f"{report.owner} brings it, but SIMMAT_PLUGINS leaves it out"
                )
        return said


PLUGINS_VARIABLE = "SIMMAT_PLUGINS"
STRICT_VARIABLE = "SIMMAT_STRICT_PLUGINS"
BUILTIN = importlib.metadata.EntryPoint("builtin", "simmat.plugins.builtin", PROJECT)
"""SimMAT's own parts, which are always loaded first."""

HOOKS: Mapping[str, Kind] = {
    f"simmat_{plural(kind).replace(' ', '_')}": kind for kind in KINDS
}
"""Hook -> the kind of what it brings; `simmat_callbacks` is called when a training starts."""

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
                problem = _item_problem(kind, item)
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
            f"{hook.name} must return a list of items, got {_short(answers[0])}"
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


def _item_problem(kind: Kind, item: Any) -> str:
    """Return what is wrong with an item; "" if nothing is."""
    expected = KINDS[kind]
    if isinstance(item, type) and issubclass(item, expected):
        return (
            f"got the class {item.__name__}, an instance is needed: {item.__name__}()"
        )
    if not isinstance(item, expected):
        return f"every item must be a {expected.__name__}, got {_short(item)}"
    pattern, in_words = _NAMES.get(kind, _NAME)
    name = getattr(item, "name", None)
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        return f"the name of {_short(item)} must be {in_words}, got {name!r}"
    if isinstance(item, click.Command):
        return _command_problem(name)
    problem = _api_problem(item.api_version)
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
        return f"{what}s must be a tuple of {kind.__name__}, got {_short(members)}"
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        return f"{what} names must be unique, got {names}"
    return ""


def _api_problem(stated: object) -> str:
    """Return what is wrong with the `api_version` of a spec or sensor; "" if nothing is."""
    if stated == API_VERSION:
        return ""
    newer = isinstance(stated, int) and stated > API_VERSION
    what = "simmat" if newer else "the plugin"
    return f"is written for plugin API {stated!r}, SimMAT {__version__} has API {API_VERSION}; upgrade {what}"


def _short(value: object) -> str:
    """Return the type of a value and the start of its repr."""
    return f"{type(value).__name__} {shortened(repr(value))}"


def import_from_string(reference: str) -> Any:
    """Import "package.module:attribute", which a spec names; SpecError if it does not exist, or its module fails."""
    module_name, _, attribute = reference.partition(":")
    try:
        return getattr(import_module(module_name), attribute)
    except SimMATError:
        raise
    except Exception as error:  # the module is a plugin's and may fail in any way
        raise SpecError(
            f"cannot import {reference!r}, which a plugin names: {type(error).__name__}: {error}"
        ) from error


def _call_family(family: FoundationFamily, reference: str, *args: str) -> object:
    """Call a function of a family; any error in it becomes a PluginError."""
    function = import_from_string(reference)
    try:
        return function(*args)
    except SimMATError:
        raise
    except Exception as error:
        raise PluginError(
            f"{reference} of foundation family {family.name!r} failed: {type(error).__name__}: {error}"
        ) from error

"""What is installed, by kind and name: the sensors, models, layers, formats and commands that plugins bring."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from simmat.errors import (
    ConfigError,
    PluginError,
    SimMATError,
    SpecError,
    UnknownNameError,
    did_you_mean,
    nearest,
    unknown_name,
)
from simmat.plugin_specs import (
    FoundationFamily,
    FoundationSpec,
    LossSpec,
    TransferLayerSpec,
    TunerSpec,
)
from simmat.plugins.kinds import KINDS, Kind, api_problem, item_problem, short
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import is_sensor_file, modality_parts, options_by_sensor

if TYPE_CHECKING:
    from simmat.sensors.sensor_toml import SensorDefinition

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
        problem = item_problem("modality", adapter)
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
                f"{reference} must return a FoundationSpec named {name!r}, got {short(spec)}"
            )
        problem = api_problem(spec.api_version)
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

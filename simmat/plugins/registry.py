"""Names and what answers to them: sensors, foundation models, transfer layers, tuners, commands of plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from simmat.errors import ConfigError, PluginError, UnknownNameError, unknown_name
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.composition import ComposedModality
from simmat.sensors.names import is_sensor_file, modality_parts
from simmat.sensors.options import check_sensors, options_by_sensor
from simmat.specs import FoundationFamily, FoundationSpec, TransferLayerSpec, TunerSpec

if TYPE_CHECKING:
    import click

Kind = Literal["modality", "foundation model", "foundation family", "transfer layer", "tuner", "command"]

SLOW_SECONDS = 0.5
"""A plugin that takes longer than this to load is called slow, with its time."""

KNOWN_PLUGINS: Mapping[Kind, Mapping[str, str]] = {
    "modality": {
        "hha": "simmat-plugin-depth",
        **{
            name: f"simmat-plugin-{name}"
            for name in ("thermal", "depth", "polarization", "nir", "multispectral", "sar")
        },
        "red-nir": "simmat-plugin-nir",
        **dict.fromkeys(("polarization-aims", "polarization-aims-angles"), "simmat-plugin-aims"),
        **dict.fromkeys(("sentinel2", "landsat8"), "simmat-plugin-multispectral"),
    },
    "foundation model": {
        "lite": "simmat-plugin-lite",
        "timm": "simmat-plugin-timm",
        "hf": "simmat-plugin-transformers",
        "unet": "simmat-plugin-unet",
    },
    "foundation family": {"timm": "simmat-plugin-timm", "hf": "simmat-plugin-transformers"},
    "transfer layer": {},
    "tuner": {},
    "command": {
        "bench": "simmat-plugin-bench",
        "data index": "simmat-plugin-aims",
        "data simulate": "simmat-plugin-scenes",
    },
}
"""Which package brings a name that is not installed; of `timm/NAME` and `depth-mm` the part before the mark counts."""


def known_package(kind: Kind, name: str) -> str | None:
    """Return the package of `KNOWN_PLUGINS` that brings a name; None where none of them does."""
    known = KNOWN_PLUGINS[kind]
    return known.get(name) or known.get(re.split("[/-]", name)[0])


@dataclass(frozen=True)
class PluginReport:
    """What became of one plugin.

    Attributes:
        name: its entry-point name.
        distribution: the package it comes from; "simmat" for the built-in ones.
        version: that package's version.
        gives: kind -> the names it brought; empty where it failed.
        seconds: time to import and register it.
        error: why it failed, in one or more lines; empty where it did not.
        off: True where SIMMAT_PLUGINS leaves it out.
        imports_torch: True where importing it imported torch, which no plugin may.
    """

    name: str
    distribution: str
    version: str
    gives: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    off: bool = False
    imports_torch: bool = False

    @property
    def slow(self) -> bool:
        """True where it takes longer to load than a command should wait."""
        return self.seconds > SLOW_SECONDS

    @property
    def owner(self) -> str:
        """The package and version, as messages name it."""
        return f"{self.distribution} {self.version}".strip()


Item: TypeAlias = "ModalityAdapter | FoundationSpec | FoundationFamily | TransferLayerSpec | TunerSpec | click.Command"


class Registry:
    """Everything installed, by name. It is built by `simmat.plugins.loader.load_plugins` and passed along.

    Attributes:
        reports: what became of every plugin, built-in ones first.
    """

    def __init__(self, reports: Sequence[PluginReport], items: Iterable[tuple[Kind, Item, str]]) -> None:
        """Take (kind, item, owner) of every plugin; a name with two owners is kept and refused when asked for."""
        self.reports = tuple(reports)
        self._claims: dict[Kind, dict[str, list[tuple[Item, str]]]] = {kind: {} for kind in KNOWN_PLUGINS}
        for kind, item, owner in items:
            self._claims[kind].setdefault(str(item.name), []).append((item, owner))
        self._of_family: dict[str, FoundationSpec] = {}

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of the sensors that can be asked for, sorted."""
        return self._names("modality")

    @property
    def foundation_names(self) -> tuple[str, ...]:
        """Names of the foundation models that can be asked for, sorted; those of families come in addition."""
        return self._names("foundation model")

    @property
    def foundation_family_names(self) -> tuple[str, ...]:
        """Names of the families whose models can be asked for as FAMILY/MODEL, sorted."""
        return self._names("foundation family")

    @property
    def transfer_layer_names(self) -> tuple[str, ...]:
        """Names of the transfer layers that can be asked for, sorted."""
        return self._names("transfer layer")

    @property
    def tuner_names(self) -> tuple[str, ...]:
        """Names of the tuners that can be asked for, sorted."""
        return self._names("tuner")

    @property
    def command_names(self) -> tuple[str, ...]:
        """Names of the commands that plugins add, sorted."""
        return self._names("command")

    def modality(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        described: Mapping[str, ModalityAdapter] | None = None,
    ) -> ModalityAdapter:
        """Return the adapter called `name`, or the composition of the adapters joined by "+".

        Args:
            name: a part is the name of a sensor, or the path of the `sensor.toml` that describes one.
            options: of the sensors, see `simmat.sensors.options.options_by_sensor`.
            described: sensors that answer to their name before an installed one: those a bundle carries.

        Raises:
            UnknownNameError: nothing installed answers to a part.
            PluginError: two packages claim a part.
            ConfigError: the composition is empty or repeats a part, or a description or an option is wrong.
        """
        parts = modality_parts(name)
        if not all(parts):
            raise ConfigError(f"modality {name!r} has an empty part; write for example rgb+thermal")
        adapters = [self._adapter(part, described or {}) for part in parts]
        adapter = adapters[0] if len(adapters) == 1 else ComposedModality(adapters)
        names = [part.name for part in adapter.sensors()]
        said = options_by_sensor(options or {}, names)
        check_sensors(said, names)
        return adapter.with_options(said)

    def with_modality(self, adapter: ModalityAdapter) -> Registry:
        """Return a registry in which a name means this sensor, whatever is installed under it."""
        changed = Registry(self.reports, ())
        changed._claims = {
            **self._claims,
            "modality": {**self._claims["modality"], adapter.name: [(adapter, "caller")]},
        }
        return changed

    def foundation(self, name: str) -> FoundationSpec:
        """Return the foundation model called `name`, which may be FAMILY/MODEL; raises as `modality`."""
        if name in self._of_family:
            return self._of_family[name]
        if self._is_of_family(name):
            self._of_family[name] = self.foundation_family(name.partition("/")[0]).foundation(name)
            return self._of_family[name]
        spec: FoundationSpec = self._get("foundation model", name)
        return spec

    def foundation_family(self, name: str) -> FoundationFamily:
        """Return the family called `name`; raises as `modality`."""
        family: FoundationFamily = self._get("foundation family", name)
        return family

    def transfer_layer(self, name: str) -> TransferLayerSpec:
        """Return the transfer layer called `name`; raises as `modality`."""
        spec: TransferLayerSpec = self._get("transfer layer", name)
        return spec

    def tuner(self, name: str) -> TunerSpec:
        """Return the tuner called `name`; raises as `modality`."""
        spec: TunerSpec = self._get("tuner", name)
        return spec

    def command(self, name: str) -> click.Command:
        """Return the command called `name` that a plugin adds; raises as `modality`."""
        command: click.Command = self._get("command", name)
        return command

    def conflicts(self) -> dict[tuple[Kind, str], tuple[str, ...]]:
        """Return every (kind, name) that more than one package claims, with the packages."""
        return {
            (kind, name): tuple(owner for _, owner in claims)
            for kind, by_name in self._claims.items()
            for name, claims in sorted(by_name.items())
            if len(claims) > 1
        }

    def owner(self, kind: Kind, name: str) -> str:
        """Return the package and version that brings `name`; raises as `modality`."""
        if kind == "foundation model" and self._is_of_family(name):
            kind, name = "foundation family", name.partition("/")[0]
        self._get(kind, name)
        return self._claims[kind][name][0][1]

    def _is_of_family(self, name: str) -> bool:
        """True for FAMILY/MODEL of a family that is here, where no plugin brings a spec of that very name."""
        family, slash, model = name.partition("/")
        return (
            bool(slash and model)
            and name not in self._claims["foundation model"]
            and (family in self._claims["foundation family"])
        )

    def _adapter(self, part: str, described: Mapping[str, ModalityAdapter]) -> ModalityAdapter:
        if part in described:
            return described[part]
        if is_sensor_file(part):
            from simmat.sensors.declared import read_sensor

            return read_sensor(part)
        adapter: ModalityAdapter = self._get("modality", part)
        return adapter

    def _names(self, kind: Kind) -> tuple[str, ...]:
        return tuple(sorted(name for name, claims in self._claims[kind].items() if len(claims) == 1))

    def _get(self, kind: Kind, name: str) -> Any:
        claims = self._claims[kind].get(name, [])
        if not claims:
            raise self._unknown(kind, name)
        if len(claims) > 1:
            owners = " and ".join(owner for _, owner in claims)
            raise PluginError(
                f"{kind} {name!r} is claimed by {owners}; uninstall one of them, "
                "or name the plugins to start in SIMMAT_PLUGINS"
            )
        return claims[0][0]

    def _unknown(self, kind: Kind, name: str) -> UnknownNameError:
        if kind == "modality" and (replaced := self._replaced(name)):
            return replaced
        package = known_package(kind, name)
        installed = {report.distribution for report in self.reports if not report.error and not report.off}
        hints = [f"A plugin brings it: pip install {package}"] if package and package not in installed else []
        if not hints and kind == "modality":
            hints.append("Others: pip install simmat-plugin-<name>, or describe yours in a sensor.toml")
        if failed := [report.name for report in self.reports if report.error]:
            hints.append(f"Failed to load: {', '.join(failed)}; see simmat plugins list")
        if off := [report.name for report in self.reports if report.off]:
            hints.append(f"Left out by SIMMAT_PLUGINS: {', '.join(off)}")
        names = self._names(kind)
        if kind == "foundation model":
            names += tuple(f"{family}/NAME" for family in self.foundation_family_names)
        return unknown_name(kind, name, names, hint=". ".join(hints))

    def _replaced(self, name: str) -> UnknownNameError | None:
        """Return what to write in place of a name that has become an option of a sensor."""
        for sensor in self.modality_names:
            adapter: ModalityAdapter = self._get("modality", sensor)
            if option := adapter.replaces.get(name):
                given = " ".join(f"--modality-option {item.strip()}" for item in option.split(","))
                return UnknownNameError(
                    f"no modality {name!r}: it is {sensor} with {option}; write --modality {sensor} {given} "
                    f"(modality_options in Python and files; {sensor}.OPTION in a composition)"
                )
        return None

"""Families: all the models of a library, offered as `FAMILY/MODEL` without a spec for each.

A plugin names a family at no cost; its library is imported when one of its models, or their list, is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simmat.api_version import API_VERSION, api_problem
from simmat.errors import PluginError, SimMATError, UnknownNameError, nearest
from simmat.foundation import FoundationSpec, resolve


@dataclass(frozen=True, slots=True)
class FoundationFamily:
    """A namespace of foundation models as data.

    A spec must follow from its name alone, the same on every machine: a bundle keeps no more than the name. Where a
    name says a place on this machine, whoever opens the bundle elsewhere says the place there (`load_bundle`).

    Attributes:
        name: the part before the slash: `--foundation NAME/MODEL`.
        description: one line for `simmat foundations list`.
        models: "package.module:function"; called as `function()`, returns model name -> one line about it. What it
            lists is shown and guessed from; a family may take further names.
        spec: "package.module:function"; called as `function(model)` with the part behind the slash; returns the
            `FoundationSpec` named `NAME/MODEL`, or None where there is no such model.
        api_version: of the plugin interface it is written for; another than SimMAT's own is refused by name.
    """

    name: str
    description: str
    models: str
    spec: str
    api_version: int = API_VERSION

    def list_models(self) -> dict[str, str]:
        """Return full name -> one line about it, of every model the family lists.

        Raises:
            SimMATError: the library behind it cannot be imported, or fails.
        """
        listed = self._call(self.models)
        if not isinstance(listed, Mapping):
            raise PluginError(f"{self.models} must return a table of names, got {type(listed).__name__}")
        return {f"{self.name}/{model}": str(line) for model, line in listed.items()}

    def foundation(self, name: str) -> FoundationSpec:
        """Return the spec of `name`, "FAMILY/MODEL".

        Raises:
            UnknownNameError: there is no such model; the nearest is named.
            SimMATError: the library behind the family cannot be imported, or fails.
        """
        spec = self._call(self.spec, name.removeprefix(f"{self.name}/"))
        if spec is None:
            raise self._unknown(name)
        if not isinstance(spec, FoundationSpec) or spec.name != name:
            got = f"one named {spec.name!r}" if isinstance(spec, FoundationSpec) else f"a {type(spec).__name__}"
            raise PluginError(f"{self.spec} must return a FoundationSpec named {name!r}, got {got}")
        if problem := api_problem(spec.api_version):
            raise PluginError(f"foundation model {name!r} {problem}")
        return spec

    def _call(self, reference: str, *args: str) -> object:
        """Call a function of the plugin; what goes wrong in it is told as the plugin's failure."""
        function = resolve(reference)
        try:
            return function(*args)
        except SimMATError:
            raise
        except Exception as error:
            raise PluginError(
                f"{reference} of foundation family {self.name!r} failed: {type(error).__name__}: {error}"
            ) from error

    def _unknown(self, name: str) -> UnknownNameError:
        known = self.list_models()
        prefix = f"{self.name}/"
        guess = nearest(name.removeprefix(prefix), [model.removeprefix(prefix) for model in known])
        did_you_mean = f"; did you mean {prefix + guess!r}?" if guess else "."
        return UnknownNameError(
            f"no foundation model {name!r}{did_you_mean} `simmat foundations list {self.name}/` shows all {len(known)}"
        )

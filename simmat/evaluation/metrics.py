"""The metrics that are registered by name, computed for one mask or for what was found without prompts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from simmat.errors import PluginError, SimMATError
from simmat.plugin_specs import MetricResult, MetricSpec, import_from_string
from simmat.plugins.registry import Registry

Metric = Callable[..., float | None]
"""Computes a figure, see `MetricSpec.compute`."""


def find_metrics(registry: Registry, result: MetricResult) -> dict[str, Metric]:
    """Return name -> function of all metrics that score one kind of result."""
    specs: list[MetricSpec] = registry.all("metric")
    return {spec.name: _checked(spec) for spec in specs if spec.result == result}


def _checked(spec: MetricSpec) -> Metric:
    """Return the function of a metric, whose failures name it."""
    function = import_from_string(spec.compute)

    def compute(*given: Any) -> float | None:
        try:
            value = function(*given)
        except SimMATError:
            raise
        except Exception as error:  # a plugin's function may fail in any way
            raise PluginError(f"metric {spec.name!r} failed ({type(error).__name__}: {error})") from error
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise PluginError(f"metric {spec.name!r} must return a finite number or None, got {value!r}")
        return float(value)

    return compute

"""Every reader of a stranger's file, as a function that the cases call."""

from __future__ import annotations

from fuzz.case import Target
from fuzz.targets import (
    bundles,
    data,
    documents,
    images,
    runs,
    runtime,
    sensors,
    servers,
    stacks,
    vendors,
    weights,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        images,
        stacks,
        sensors,
        vendors,
        data,
        documents,
        bundles,
        weights,
        runs,
        runtime,
        servers,
    )
    for target in module.TARGETS
}
"""Name -> target, in the order in which they run."""

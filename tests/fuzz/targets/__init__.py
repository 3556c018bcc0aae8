"""Every reader of a stranger's file, as a function that the cases call."""

from __future__ import annotations

from fuzz.case import Target
from fuzz.targets.bundles import BUNDLE_TARGETS
from fuzz.targets.data import DATA_TARGETS
from fuzz.targets.documents import DOCUMENT_TARGETS
from fuzz.targets.images import IMAGE_TARGETS
from fuzz.targets.runs import RUN_TARGETS
from fuzz.targets.runtime import RUNTIME_TARGETS
from fuzz.targets.sensors import SENSOR_TARGETS
from fuzz.targets.weights import WEIGHT_TARGETS

TARGETS: dict[str, Target] = {
    target.name: target
    for group in (
        IMAGE_TARGETS,
        SENSOR_TARGETS,
        DATA_TARGETS,
        DOCUMENT_TARGETS,
        BUNDLE_TARGETS,
        WEIGHT_TARGETS,
        RUN_TARGETS,
        RUNTIME_TARGETS,
    )
    for target in group
}
"""Name -> target, in the order in which they run."""

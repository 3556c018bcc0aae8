"""The bundle: a trained model to use and share, as one safetensors file.

Its header holds, as json, everything needed to use the weights again and to refuse what they do not fit. Its tensors
are the transfer layer and what the tuner changed. Frozen foundation weights are not in it: the json names their file by
sha256, or the seed if they are random.

It may hold several sensors, which share what a tuner changed of the foundation model; BUNDLE/NAME is one of them.
"""

from simmat.bundle.format import (
    FILE_NAME,
    SUFFIX,
    BundleSpec,
    ImageDigests,
    Package,
    Sensors,
    bundle_spec,
    content_digest,
    load_tensors,
    packages_of,
    trained_tensors,
    write_bundle,
    write_sensors,
)
from simmat.bundle.load import (
    Bundle,
    check_sensor_channels,
    find_bundle,
    load_bundle,
    local_path,
    read_bundle,
    read_bundle_spec,
    read_bundle_specs,
    read_sensors,
)

__all__ = [
    "FILE_NAME",
    "SUFFIX",
    "Bundle",
    "BundleSpec",
    "ImageDigests",
    "Package",
    "Sensors",
    "bundle_spec",
    "check_sensor_channels",
    "content_digest",
    "find_bundle",
    "load_bundle",
    "load_tensors",
    "local_path",
    "packages_of",
    "read_bundle",
    "read_bundle_spec",
    "read_bundle_specs",
    "read_sensors",
    "trained_tensors",
    "write_bundle",
    "write_sensors",
]

"""The bundle: a trained model to use and share. A folder of one json and one safetensors file, or a zip of it.

It may hold several sensors, which share what a tuner changed of the foundation model; BUNDLE/NAME is one of them.

`bundle.json` holds everything needed to use the weights again and to refuse what they do not fit.
`weights.safetensors` holds the transfer layer and what the tuner changed. Frozen foundation weights are not in it: the
json names their file by sha256, or the seed if they are random.
"""

from simmat.bundle.document import (
    BundleSpec,
    ImageDigests,
    bundle_spec,
    check_bundle,
    read_bundle_spec,
    read_bundle_specs,
    with_checksum,
    write_bundle,
    write_sensors,
)
from simmat.bundle.files import JSON_NAME, load_tensors, trained_tensors
from simmat.bundle.gallery import Gallery, open_gallery
from simmat.bundle.load import Bundle, check_sensor_channels, load_bundle, read_bundle, read_sensors
from simmat.bundle.sharing import index_folder, pull_bundle, push_bundle

__all__ = [
    "JSON_NAME",
    "Bundle",
    "BundleSpec",
    "Gallery",
    "ImageDigests",
    "bundle_spec",
    "check_bundle",
    "check_sensor_channels",
    "index_folder",
    "load_bundle",
    "load_tensors",
    "open_gallery",
    "pull_bundle",
    "push_bundle",
    "read_bundle",
    "read_bundle_spec",
    "read_bundle_specs",
    "read_sensors",
    "trained_tensors",
    "with_checksum",
    "write_bundle",
    "write_sensors",
]

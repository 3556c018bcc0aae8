"""The bundle: what training gives and people share. A folder of one json and one safetensors file, or a zip of it.

`bundle.json` holds everything needed to use the weights again and to refuse what they do not fit;
`weights.safetensors` holds the transfer layer and whatever the tuner moved. Frozen foundation weights
are not in it: the json names their file by sha256, or the seed where they are random.
"""

from simmat.bundle.document import check_bundle, checked_spec, read_bundle_spec
from simmat.bundle.load import Bundle, check_sensor_channels, load_bundle
from simmat.bundle.plan import adapter_for, plan_of, zero_shot_plan
from simmat.bundle.sharing import pull_bundle, push_bundle
from simmat.bundle.spec import FORMAT, JSON_NAME, WEIGHTS_NAME, BundleSpec
from simmat.bundle.tensors import load_tensors, trained_tensors
from simmat.bundle.write import write_bundle

__all__ = [
    "FORMAT",
    "JSON_NAME",
    "WEIGHTS_NAME",
    "Bundle",
    "BundleSpec",
    "adapter_for",
    "check_bundle",
    "check_sensor_channels",
    "checked_spec",
    "load_bundle",
    "load_tensors",
    "plan_of",
    "pull_bundle",
    "push_bundle",
    "read_bundle_spec",
    "trained_tensors",
    "write_bundle",
    "zero_shot_plan",
]

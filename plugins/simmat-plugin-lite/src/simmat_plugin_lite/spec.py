"""The spec of `lite`. The weights are in this package, with their digest and size in a json file."""

from __future__ import annotations

from pathlib import Path

from simmat.errors import WeightsError
from simmat.io.reading import read_json
from simmat.plugin_specs import FoundationSpec, TuningTargets, WeightFile

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
WEIGHTS_FILE = "lite.safetensors"
FACTS_FILE = "lite.json"

PIXEL_MEAN = (127.5, 127.5, 127.5)
"""Range 0..255; the values of timm's tf_efficientnet_lite0."""
PIXEL_STD = (127.5, 127.5, 127.5)
"""Range 0..255; from the same source."""

LITE_TARGETS = TuningTargets(
    lora={
        r"backbone[.]blocks[.][0-9]+[.][0-9]+[.]conv_(pw|pwl)": ((0,), 1),
        r"backbone[.]neck[.]context[.][0-9]+[.]qkv": ((0, 2), 3),
        r"backbone[.]neck[.]refine[.].*[.]mix": ((0,), 1),
        r"decoder[.](search|settle|sharpen)[.][0-9]+[.]mix": ((0,), 1),
        r"decoder[.](sim16|sim8|sim4)[.](click|region)[.](key|query)": ((0,), 1),
    },
    spatial_layers=(
        r"backbone[.]blocks[.][0-9]+[.][0-9]+[.]conv_(pw|pwl)",
        r"backbone[.]neck[.]refine[.].*[.]mix",
        r"decoder[.](search|settle|sharpen)[.][0-9]+[.]mix",
    ),
    adapters={
        # the first of a stage changes the shape
        r"backbone[.]blocks[.][0-9]+[.][1-9][0-9]*": "",
        r"backbone[.]neck[.]context[.][0-9]+": "",
        r"decoder[.](search|settle|sharpen)[.][0-9]+": "",
    },
    attention=(r"backbone[.]neck[.]context[.][0-9]+",),
    embed=(r"backbone[.]conv_stem[.]weight",),
)
"""The 1x1 convolutions of the blocks and the attention of the neck, without the layers that join the levels."""


_FACTS = read_json(
    WEIGHTS_FOLDER / FACTS_FILE,
    "facts of the weights",
    error=WeightsError,
    hint="install the package again",
)

LITE = FoundationSpec(
    name="lite",
    description="EfficientNet-Lite0 with a dense prompt decoder, 4.5 M parameters, pretrained on RGB; weights included",
    build="simmat_plugin_lite.model:build_lite",
    image_size=256,
    size_multiple=32,
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
    targets=LITE_TARGETS,
    weights=WeightFile(
        filename=WEIGHTS_FILE,
        sha256=_FACTS["sha256"],
        size_bytes=_FACTS["size_bytes"],
        path=WEIGHTS_FOLDER / WEIGHTS_FILE,
        licence="Apache-2.0",
    ),
    licence="Apache-2.0",
    # this and the next lines are chosen on validation, benchmarks/README.md
    learning_rates={"full": 1e-3},
    training={"prompts_per_image": 1, "precision": "auto"},
    mat_options={"contrast": 0.33},
    tune="full",
    parameters=4_492_362,
    zero_shot_rgb=0.451,
)

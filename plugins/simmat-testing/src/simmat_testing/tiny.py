"""The spec of the model `tiny`."""

from __future__ import annotations

from simmat.plugin_specs import FoundationSpec, TuningTargets

TINY = FoundationSpec(
    name="tiny",
    description="a vision transformer of 0.2 M parameters, random from the seed: for tests, not for results",
    build="simmat_testing.tiny_model:build_tiny",
    image_size=256,
    size_multiple=16,
    pixel_mean=(127.5, 127.5, 127.5),
    pixel_std=(127.5, 127.5, 127.5),
    targets=TuningTargets(
        lora={
            r"backbone[.]blocks[.][0-9]+[.]attn[.]qkv": ((0, 2), 3),
            r"decoder[.]blocks[.][0-9]+[.]to_(image|tokens)[.][qv]_proj": ((0,), 1),
        },
        spatial_layers=(r"backbone[.]blocks[.][0-9]+[.]attn[.]qkv",),
        adapters={
            r"backbone[.]blocks[.][0-9]+[.]mlp": "norm2",
            r"decoder[.]blocks[.][0-9]+[.]mlp": "",
        },
        attention=(
            r"backbone[.]blocks[.][0-9]+[.]attn",
            r"decoder[.]blocks[.][0-9]+[.]to_(image|tokens)",
        ),
        embed=(r"backbone[.]first_layer[.](weight|bias)",),
        frozen=(r"decoder[.]prompt[.].*",),
    ),
    promptable=False,
    licence="Apache-2.0",
    options={"width": 64, "depth": 2, "heads": 2},
    parameters=238_948,
)

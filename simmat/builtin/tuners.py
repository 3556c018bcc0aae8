"""The built-in tuners, as data."""

from __future__ import annotations

from simmat.transfer import TunerSpec

TUNERS: tuple[TunerSpec, ...] = (
    TunerSpec(
        name="frozen",
        description="nothing of the foundation model moves; only the transfer layer trains",
        apply="simmat.nn.tuners:apply_frozen",
        learning_rate=1e-3,
    ),
    TunerSpec(
        name="lora",
        description="low-rank updates of the layers the model names (SAM: q and v of every attention)",
        apply="simmat.nn.tuners:apply_lora",
        options={"rank": 16, "alpha": 16.0, "where": "all"},
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="conv-lora",
        description="LoRA with a 3x3 convolution between its factors where a layer sees the token grid",
        apply="simmat.nn.tuners:apply_conv_lora",
        options={"rank": 16, "alpha": 16.0, "where": "all"},
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="adapter",
        description="a small MLP beside every block's MLP, starting at zero",
        apply="simmat.nn.adapters:apply_adapter",
        options={"width": 200, "scale": 0.1},
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="prompt",
        description="trained tokens that join keys and values of every attention through its projections",
        apply="simmat.nn.memory:apply_prompt",
        options={"tokens": 400, "dropout": 0.1},
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="prefix",
        description="trained keys and values that join those of every attention",
        apply="simmat.nn.memory:apply_prefix",
        options={"tokens": 200},
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="linear",
        description="only the first layer and the position embeddings move",
        apply="simmat.nn.tuners:apply_linear",
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="decoder",
        description="the whole mask decoder moves, the backbone stays",
        apply="simmat.nn.tuners:apply_decoder",
        learning_rate=3e-4,
    ),
    TunerSpec(
        name="full",
        description="everything moves but what the model never moves (SAM: the prompt encoder)",
        apply="simmat.nn.tuners:apply_full",
        learning_rate=3e-5,
    ),
)

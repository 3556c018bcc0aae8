"""The built-in tuners, as data."""

from __future__ import annotations

from simmat.foundation import TunerSpec

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

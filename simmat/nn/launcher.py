"""What accelerate's environment variables may say: how processes are launched, not how a run computes.

`accelerate launch` sets some of them from its options and from `accelerate config`, perhaps long ago; others stay in a
shell. Where they would change the computation they are refused, so that SimMAT's own settings describe all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simmat.errors import ConfigError

_FALSE = ("0", "false", "no", "off", "n", "f")
_TRUE = ("1", "true", "yes", "on", "y", "t")
"""Words that accelerate takes for a flag, in any case."""
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed cuts the weights up; SimMAT trains with whole ones on every device",
    "ACCELERATE_USE_FSDP": "FSDP cuts the weights up; SimMAT trains with whole ones on every device",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM cuts the weights up; SimMAT trains with whole ones on every device",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "SimMAT shares out images between devices, and nothing else",
    "ACCELERATE_DYNAMO_BACKEND": "SimMAT does not compile its networks",
    "ACCELERATE_FP8_BACKEND": "SimMAT computes in what --precision says: fp32, bf16 or fp16",
}
"""Variables that change how a run computes -> why they may not; words that accelerate takes for "no" are allowed."""
_OWN = ("ACCELERATE_TORCH_DEVICE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
"""Variables that `device`, `precision` and `grad_accumulation` of a run stand in for."""
_OWN_PREFIX = "ACCELERATE_DYNAMO_"


def check_launcher(device: torch.device) -> None:
    """Check that no environment variable of accelerate changes how this process computes.

    Args:
        device: what the settings choose.

    Raises:
        ConfigError: one does; says which, its value and what to do.
    """
    for variable, why in _REFUSED.items():
        value = os.environ.get(variable)
        if value is None or value == "NO" or (value.lower() in _FALSE and variable != "ACCELERATE_FP8_BACKEND"):
            continue
        raise ConfigError(
            f"the environment has {variable}={value}, and {why}; unset {variable}, or launch with accelerate launch "
            "--multi_gpu and without that option (accelerate config may have set it)"
        )
    value = os.environ.get("ACCELERATE_USE_CPU", "false")
    if value.lower() not in (*_TRUE, *_FALSE) or (value.lower() in _TRUE and device.type != "cpu"):
        raise ConfigError(
            f"the environment has ACCELERATE_USE_CPU={value}, and this run is to be on {device}; say --device cpu, or "
            "unset ACCELERATE_USE_CPU (accelerate launch --cpu and accelerate config set it)"
        )


@contextmanager
def own_settings(device: torch.device | None) -> Iterator[None]:
    """Hide from accelerate, while it starts, the variables that SimMAT's own settings stand in for.

    Args:
        device: the one it takes, which it reads from the environment only; None lets it choose, as several processes
            must to take a GPU each.
    """
    hidden = [name for name in os.environ if name in _OWN or name.startswith(_OWN_PREFIX)]
    before = {name: os.environ.pop(name) for name in hidden}
    if device is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    try:
        yield
    finally:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
        os.environ.update(before)

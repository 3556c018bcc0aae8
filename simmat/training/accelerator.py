"""accelerate's side of a run: its settings, its device, and what its processes must agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedType, GradientAccumulationPlugin, broadcast

from simmat.config import TrainConfig
from simmat.errors import ConfigError
from simmat.nn.device import launched_processes, pick_device

_DEVICE_VARIABLE = "ACCELERATE_TORCH_DEVICE"
_CUT_UP = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Ways to train in which no process holds the whole network."""


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return accelerate's front end of a run, on the config's device.

    Raises:
        ConfigError: the device is not there or has no such precision, or the batch cannot be split over the processes.
    """
    # accelerate keeps its state for the whole process; a second run in it may want other settings.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    with _device_named(config.device):
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
            # The parts of a step are counted, for accelerate would look at a loader, perhaps at that of an earlier run.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                config.grad_accumulation, sync_with_dataloader=False
            ),
            cpu=config.device == "cpu",
            dataloader_config=DataLoaderConfiguration(split_batches=True, even_batches=False),
            rng_types=[],
        )
    if accelerator.distributed_type in _CUT_UP:
        raise ConfigError(
            f"accelerate is set to {accelerator.distributed_type.value}, which cuts the weights up; SimMAT trains with "
            "whole ones on every device: accelerate launch --multi_gpu, or another answer to accelerate config"
        )
    if config.precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would compute in fp32 unasked
        raise ConfigError("--precision fp16 needs a GPU, and this run is on the CPU; use fp32 or bf16")
    share = config.batch_size // config.grad_accumulation
    if config.batch_size % config.grad_accumulation or share % accelerator.num_processes:
        raise ConfigError(
            f"--batch-size {config.batch_size} must be a multiple of --grad-accumulation "
            f"{config.grad_accumulation} x {accelerator.num_processes} processes, so that each gets as many images"
        )
    return accelerator


@torch.no_grad()
def share_buffers(model: torch.nn.Module, accelerator: Accelerator) -> None:
    """Give every process the first one's buffers; BatchNorm's running statistics are each process's own after a step.

    Called by all processes at the same point, before a network is scored: it is the first one's that is saved.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.contiguous(), from_process=0))


@contextmanager
def _device_named(name: str) -> Iterator[None]:
    """Let accelerate take the named device while it starts.

    It takes a device from the environment only, and one that is named there is that of every process: several
    must be left to take a GPU each.
    """
    processes = launched_processes()
    device = pick_device(name, processes=processes)
    if name in ("auto", "cpu") or processes > 1:
        yield
        return
    before = os.environ.get(_DEVICE_VARIABLE)
    os.environ[_DEVICE_VARIABLE] = str(device)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_DEVICE_VARIABLE]
        else:
            os.environ[_DEVICE_VARIABLE] = before

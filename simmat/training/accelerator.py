"""Set up accelerate for a run, and share buffers between its processes."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, broadcast

from simmat.config import TrainConfig
from simmat.errors import ConfigError
from simmat.nn.device import check_launcher, launched_processes, own_settings, pick_device


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return accelerate's `Accelerator` for a run, on the config's device; ConfigError if that cannot be."""
    processes = launched_processes()
    device = pick_device(config.device, processes=processes)
    check_launcher(device)
    # accelerate keeps its state for the whole process; a second run in it may need other settings.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    # Of several processes each takes its own GPU; accelerate finds the device for "auto" and "cpu" itself.
    with own_settings(None if config.device in ("auto", "cpu") or processes > 1 else device):
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
            # Count accumulated batches instead of watching the loader, which may be that of an earlier run.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                config.grad_accumulation, sync_with_dataloader=False
            ),
            cpu=config.device == "cpu",
            dataloader_config=DataLoaderConfiguration(split_batches=True, even_batches=False),
            rng_types=[],
            log_with=config.track,
            project_dir=config.out,
        )
    if config.precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would silently use fp32
        raise ConfigError("--precision fp16 needs a GPU, and this run is on the CPU; use fp32 or bf16")
    if config.batch_size // config.grad_accumulation % accelerator.num_processes:
        raise ConfigError(
            f"--batch-size {config.batch_size} must be a multiple of --grad-accumulation "
            f"{config.grad_accumulation} x {accelerator.num_processes} processes, so that all get equally many images"
        )
    return accelerator


@torch.no_grad()
def share_buffers(model: torch.nn.Module, accelerator: Accelerator) -> None:
    """Copy the buffers of process 0 to all others: BatchNorm's running statistics differ between them after a step.

    All processes call this before the network is scored; the network of process 0 is the one that is saved.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.contiguous(), from_process=0))

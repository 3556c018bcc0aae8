"""Set up accelerate for a run, share buffers between its processes, and choose what data loading may use."""

from __future__ import annotations

import multiprocessing
import shutil
from contextlib import suppress

import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, broadcast

from simmat.config import TrainConfig
from simmat.data.batches import TrainingItems
from simmat.errors import ConfigError
from simmat.nn.device import launched_processes, own_settings, pick_device
from simmat.threads import START_METHOD, memory_limit, usable_cpus

_MAX_WORKERS = 8
_MIN_ITEMS_PER_WORKER = 32
"""Fewest items for a process that loads data, so that its start pays off."""
_CORES_PER_WORKER = 4
"""Cores for each such process, where the cores compute the steps, too."""


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return accelerate's `Accelerator` for a run, on the config's device; ConfigError if that cannot be."""
    processes = launched_processes()
    device = pick_device(config.device, processes=processes)
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


def loading_processes(config: TrainConfig, accelerator: Accelerator, items: TrainingItems, count: int) -> int:
    """Return how many processes load the next `count` items: as the config says, or so many that no step waits.

    0 where they would slow it down: for few items, and on a CPU of few cores, which compute the steps. 0, too, on
    systems other than Linux, where each would start Python anew, in a process that may have no children, and where
    /dev/shm, through which they pass batches, has little room.
    """
    if config.workers is not None:
        return config.workers
    if START_METHOD != "fork" or multiprocessing.current_process().daemon:
        return 0
    processes: int = accelerator.num_processes
    cores = usable_cpus() // processes
    limit = cores - 1 if accelerator.device.type != "cpu" else min(cores, torch.get_num_threads()) // _CORES_PER_WORKER
    limit = min(limit, count // processes // _MIN_ITEMS_PER_WORKER, _MAX_WORKERS)
    if limit <= 0:
        return 0
    step_bytes = config.batch_size * sum(part.nbytes for part in items[0])
    in_shared_memory = 0
    with suppress(OSError):  # each has two batches ready; half of the room is left to others
        in_shared_memory = shutil.disk_usage("/dev/shm").free // (4 * step_bytes)
    return min(limit, in_shared_memory)


def memory_for_images() -> int:
    """Return how many bytes of images a run may keep to read them once: an eighth of the machine's or container's."""
    limit, installed = memory_limit(), int(psutil.virtual_memory().total)
    return min(installed, limit or installed) // 8

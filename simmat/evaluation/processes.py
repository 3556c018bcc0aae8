"""The processes that share a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from simmat.nn.device import check_launcher, launched_processes, own_settings, pick_device

Item = TypeVar("Item")
_PATIENCE = timedelta(days=7)
"""How long a process waits for the shares of the others; the launcher ends it if one of them fails."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a job, as this one sees them.

    Attributes:
        device: where this process computes.
        rank: number of this process, from 0.
        count: how many processes there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that prints and writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of some items; each item is in exactly one part."""
        return items[self.rank :: self.count]

    def gather(self, value: Item) -> list[Item]:
        """Return the values of all processes, by rank."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([value])
        return gathered


def join_processes(device: str | None) -> Processes:
    """Join the processes of the launcher; without a launcher this process is the only one.

    Args:
        device: as `pick_device` takes it. Several processes take one GPU each, so cuda:N is refused.

    Raises:
        ConfigError: the device does not exist, or accelerate's environment variables would change how it computes.
    """
    processes = launched_processes()
    picked = pick_device(device, processes=processes)
    if processes == 1:
        return Processes(picked)
    from accelerate import PartialState

    check_launcher(picked)
    with own_settings(None):
        state = PartialState(cpu=picked.type == "cpu", timeout=_PATIENCE)
    return Processes(state.device, state.process_index, state.num_processes)

"""A scoring shared out among the processes of accelerate's launcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from simmat.nn.device import launched_processes, pick_device
from simmat.nn.launcher import check_launcher, own_settings

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        device: where this one computes.
        rank: its number, from 0.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part; each item is in exactly one."""
        return items[self.rank :: self.count]

    def gather(self, value: Item) -> list[Item]:
        """Return the values of all processes, by rank."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([value])
        return gathered


def join_processes(device: str | None) -> Processes:
    """Join the processes that the launcher started, or work alone where it started none.

    Args:
        device: auto, cpu, cuda, cuda:N or mps; None is auto. Several processes take a GPU each, so none can be named.

    Raises:
        ConfigError: the device is not there, is one for several processes, or an environment variable of accelerate
            would change how they compute.
    """
    processes = launched_processes()
    picked = pick_device(device, processes=processes)
    if processes == 1:
        return Processes(picked)
    from accelerate import PartialState

    check_launcher(picked)
    with own_settings(None):
        state = PartialState(cpu=picked.type == "cpu")
    return Processes(state.device, state.process_index, state.num_processes)

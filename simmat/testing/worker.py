"""What a DataLoader worker runs. A module of its own, so that a spawned worker finds it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from simmat.sensors.adapter import ModalityAdapter


class OneSample(Dataset[tuple[Tensor, Tensor]]):
    """A data set of one sample, as (C, H, W) data and valid."""

    def __init__(self, adapter: ModalityAdapter, files: dict[str, Path]) -> None:
        self.adapter = adapter
        self.files = files

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.adapter.load(self.files)
        return torch.from_numpy(image.data), torch.from_numpy(image.valid)

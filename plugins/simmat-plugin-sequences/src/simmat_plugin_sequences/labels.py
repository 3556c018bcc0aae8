"""The soft labels of frames, as later frames need them: compressed, in memory or in a folder."""

from __future__ import annotations

import zlib
from collections.abc import Collection, MutableMapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Kind = Literal["found", "back", "given"]
"""Of labels: as found, propagated back from the next frame with masks, or those of the given masks."""
_ONE = 255
"""A label of 1 as it is stored."""


class LabelKey(NamedTuple):
    """Which labels of which frame."""

    kind: Kind
    frame: int

    @property
    def name(self) -> str:
        """The name under which they are stored."""
        return f"{self.kind[0]}{self.frame}"


class LabelStore:
    """Labels (K, h, w) of frames, 0 to 1, in 8 bits: a run that is resumed has the same ones."""

    def __init__(
        self, stored: MutableMapping[str, bytes], shape: tuple[int, int, int]
    ) -> None:
        """Keep labels of a shape in `stored`, which may have those of an earlier run."""
        self._stored = stored
        self._shape = shape

    def __contains__(self, key: LabelKey) -> bool:
        """Return whether labels are there."""
        return key.name in self._stored

    def keep(self, key: LabelKey, labels: Tensor) -> None:
        """Store labels."""
        values = (labels * _ONE).round().byte().numpy()
        self._stored[key.name] = zlib.compress(values.tobytes(), 1)

    def load(self, key: LabelKey) -> Tensor | None:
        """Return labels; None if they are not there."""
        stored = self._stored.get(key.name)
        if stored is None:
            return None
        values = np.frombuffer(zlib.decompress(stored), np.uint8).reshape(self._shape)
        return torch.from_numpy(values.astype(np.float32)) / _ONE

    def drop(self, key: LabelKey) -> None:
        """Remove labels that may be there."""
        self._stored.pop(key.name, None)

    def keep_only(self, kind: Kind, keys: Collection[LabelKey]) -> None:
        """Remove all labels of a kind but some."""
        names = {key.name for key in keys}
        for name in list(self._stored):
            if name.startswith(kind[0]) and name not in names:
                del self._stored[name]

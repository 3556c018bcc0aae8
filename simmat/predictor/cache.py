"""Embeddings on disk, so that a second session of clicks on an image needs no encoder.

A file holds the embedding of one input of the network, in fp16. Its name is a sha256 of the model and of that input, so
it never has to be renewed, and several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from simmat.data.pipeline import PreparedImage
from simmat.documents import Document, as_tuples, validate
from simmat.errors import SimMATError
from simmat.foundation import ImageEmbedding
from simmat.io.files import atomic_write_bytes, parse_json, remove_leftovers, require_file
from simmat.version import __version__

FORMAT = 1
"""Raised with every change that an older reader would misread."""


class _Notes(Document):
    """The json in the metadata of a file; the sha256 is of the levels, whose strides are in pixels of the input."""

    format: Literal[1]
    key: str
    strides: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuples)]
    sha256: str


@dataclass(frozen=True)
class CachedEmbedding:
    """The place of one embedding in a folder.

    Attributes:
        key: sha256 of the model and of the network's input.
    """

    folder: Path
    key: str

    @classmethod
    def of(cls, folder: Path, prepared: PreparedImage, *model: str) -> CachedEmbedding:
        """Return the place of the embedding of an input.

        Args:
            model: what else decides the embedding.
        """
        identity = [FORMAT, __version__, *model, list(prepared.planes.shape)]
        digest = hashlib.sha256(json.dumps(identity).encode())
        for content in _contents([prepared.planes, prepared.content]):
            digest.update(content)
        return cls(folder, digest.hexdigest())

    @property
    def file(self) -> Path:
        """The file, whether it exists or not."""
        return self.folder / f"{self.key}.safetensors"

    def read(self) -> ImageEmbedding | None:
        """Return the embedding, fp16 on the CPU; None if the file is missing, damaged or not one of these."""
        try:
            require_file(self.file)
            with safe_open(self.file, framework="pt") as file:
                notes = validate(_Notes, parse_json((file.metadata() or {})["simmat"]))
                levels = [file.get_tensor(f"level{index}") for index in range(len(notes.strides))]
        except (LookupError, OSError, RuntimeError, SafetensorError, SimMATError, TypeError, ValueError):
            return None
        if any(level.dim() != 4 for level in levels):  # (N, C, h, w)
            return None
        if notes.key != self.key or notes.sha256 != digest_of("", levels):
            return None
        return ImageEmbedding(tuple(levels), notes.strides)

    def write(self, embedding: ImageEmbedding) -> ImageEmbedding:
        """Write the embedding, and return it as `read` will, so that a second session gives the same masks.

        One with values too large for fp16, or not finite, is not written, and is returned as it is.

        Raises:
            OutputError: the file cannot be written, such as on a full disk.
        """
        levels = [level.detach().to("cpu", torch.float16).contiguous() for level in embedding.levels]
        if not all(level.isfinite().all() for level in levels):
            return embedding
        notes = {"format": FORMAT, "key": self.key, "strides": list(embedding.strides), "sha256": digest_of("", levels)}
        tensors = {f"level{index}": level for index, level in enumerate(levels)}
        remove_leftovers(self.file)
        atomic_write_bytes(self.file, save(tensors, metadata={"simmat": json.dumps(notes)}))
        return ImageEmbedding(tuple(levels), embedding.strides)


def digest_of(document: object, tensors: Iterable[Tensor] | Mapping[str, Tensor]) -> str:
    """Return the sha256 of a json value and of tensors with types and shapes, and with names if they have any."""
    named = sorted(tensors.items()) if isinstance(tensors, Mapping) else [("", tensor) for tensor in tensors]
    described = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in named]
    digest = hashlib.sha256(json.dumps([document, described]).encode())
    for content in _contents(tensor for _, tensor in named):
        digest.update(content)
    return digest.hexdigest()


def _contents(tensors: Iterable[Tensor]) -> Iterator[memoryview]:
    for tensor in tensors:
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

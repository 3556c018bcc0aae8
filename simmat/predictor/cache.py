"""Embeddings on disk, so that a second session of clicks on an image needs no encoder.

A file holds the embedding of one input of the network, in fp16. Its name is a sha256 of the model and of that input, so
it never becomes outdated, and several processes may share a folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from simmat.bundle import content_digest
from simmat.data.pipeline import PreparedImage
from simmat.errors import SimMATError
from simmat.foundation import ImageEmbedding
from simmat.io.files import atomic_write_bytes, remove_temporary
from simmat.io.paths import require_file
from simmat.io.reading import parse_json
from simmat.version import __version__

FORMAT = 2
"""Raised with every change that an older reader would misread."""


def embedding_file(folder: Path, prepared: PreparedImage, *identity: str) -> Path:
    """Return the file of the embedding of an input.

    Args:
        folder: the folder of embeddings.
        prepared: the input.
        identity: texts that identify what else determines the embedding: the model, and what it was normalized by.
    """
    key = content_digest(
        [FORMAT, __version__, *identity],
        {"planes": prepared.planes, "content": prepared.content},
    )
    return folder / f"{key}.safetensors"


def read_embedding(file: Path) -> ImageEmbedding | None:
    """Return an embedding, fp16 on the CPU; None if the file is missing, damaged or not one of these."""
    try:
        require_file(file)
        with safe_open(file, framework="pt") as stored:
            notes = stored.metadata() or {}
            strides, digest = parse_json(notes["simmat"])
            levels = {
                f"level{index}": stored.get_tensor(f"level{index}")
                for index in range(len(strides))
            }
    except (
        LookupError,
        OSError,
        RuntimeError,
        SafetensorError,
        SimMATError,
        TypeError,
        ValueError,
    ):
        return None
    if digest != content_digest([file.stem, strides], levels):
        return None
    return ImageEmbedding(tuple(levels.values()), tuple(strides))


def write_embedding(file: Path, embedding: ImageEmbedding) -> ImageEmbedding:
    """Write an embedding, and return it as `read_embedding` will, so that a second session gives the same masks.

    One with values too large for fp16, or not finite, is not written, and is returned unchanged.

    Raises:
        OutputError: the file cannot be written, such as on a full disk.
    """
    levels = {}
    for index, level in enumerate(embedding.levels):
        levels[f"level{index}"] = level.detach().to("cpu", torch.float16).contiguous()
        if not levels[f"level{index}"].isfinite().all():
            return embedding
    strides = list(embedding.strides)
    notes = json.dumps([strides, content_digest([file.stem, strides], levels)])
    remove_temporary(file.parent)
    atomic_write_bytes(file, save(levels, metadata={"simmat": notes}))
    return ImageEmbedding(tuple(levels.values()), embedding.strides)

"""The layers of the package `segment-anything`, imported without its predictor.

The package's first file imports the predictor and, with it, torchvision, which takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec

PACKAGE = "segment_anything"


@contextmanager
def _first_file_not_run() -> Iterator[None]:
    """Let parts of the package be imported without its first file; nothing if somebody else ran it already."""
    spec = find_spec(PACKAGE)
    if PACKAGE in sys.modules or spec is None:
        yield
        return
    sys.modules[PACKAGE] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[PACKAGE]  # the next import of it is a whole one


with _first_file_not_run():
    from segment_anything.modeling import (  # type: ignore[import-untyped]
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )
    from segment_anything.modeling.image_encoder import (  # type: ignore[import-untyped]
        Attention as EncoderAttention,
    )
    from segment_anything.modeling.image_encoder import (
        Block,
        window_partition,
        window_unpartition,
    )
    from segment_anything.modeling.transformer import (  # type: ignore[import-untyped]
        Attention as DecoderAttention,
    )

__all__ = [
    "Block",
    "DecoderAttention",
    "EncoderAttention",
    "ImageEncoderViT",
    "MaskDecoder",
    "PromptEncoder",
    "TwoWayTransformer",
    "window_partition",
    "window_unpartition",
]

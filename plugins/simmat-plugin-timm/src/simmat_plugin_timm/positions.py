"""Resize position tables that timm does not, with timm's bicubic interpolation.

Layouts of a table:

- "tokens": (1, n², D), row by row.
- "rows": (1, n, n, D).
- "planes": (1, D, n, n).
- "blocks": (1, T, b², D), the image split into T square blocks of b × b positions (NesT).
- "offsets": (heads, n²), the bias at each distance in rows and columns, row by row (LeViT and similar).
- "windows": ((2w - 1)², heads), the bias at each difference of positions in a window of w × w (Swin and similar).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table  # type: ignore[attr-defined]
from torch import Size, Tensor

State = dict[str, Tensor]


def resized(state: State, shapes: Mapping[str, Size], tables: Mapping[str, str]) -> State:
    """Resize the position tables of a weight file to the shapes in a network.

    Args:
        state: the file's tensors by name; other tensors, and tables that fit, stay the same.
        shapes: the network's shapes by name.
        tables: pattern of the tables' names -> their layout.
    """
    layouts = {name: next((tables[p] for p in tables if re.fullmatch(p, name)), "") for name in state}
    return {name: _resized(table, shapes.get(name, table.shape), layouts[name]) for name, table in state.items()}


def resized_offsets(table: Tensor, side: int) -> Tensor:
    """Resize biases by distance, (heads, n²), to (heads, side²)."""
    return _grid(table.T[None], side)[0].T.contiguous()


def _resized(table: Tensor, shape: Size, layout: str) -> Tensor:
    if not layout or table.shape == shape or table.ndim != len(shape):
        return table
    if layout == "offsets":
        return resized_offsets(table, math.isqrt(shape[1]))
    if layout == "windows":
        side = (math.isqrt(shape[0]) + 1) // 2
        windows: Tensor = resize_rel_pos_bias_table(table, (side, side), tuple(shape))
        return windows
    if layout == "tokens":
        return _grid(table, math.isqrt(shape[1]))
    if layout == "rows":
        return _grid(table.flatten(1, 2), shape[1]).reshape(shape)
    if layout == "planes":
        return _grid(table.flatten(2).transpose(1, 2), shape[2]).transpose(1, 2).reshape(shape)
    blocks, old, new = (math.isqrt(n) for n in (shape[1], table.shape[2], shape[2]))
    rows = table.reshape(1, blocks, blocks, old, old, -1).transpose(2, 3).flatten(1, 4)  # (1, (t · b)², D)
    larger = _grid(rows, blocks * new).reshape(1, blocks, new, blocks, new, -1)
    return larger.transpose(2, 3).reshape(shape)


def _grid(tokens: Tensor, side: int) -> Tensor:
    """Resize (1, n², D) to (1, side², D)."""
    resampled: Tensor = resample_abs_pos_embed(tokens, [side, side], num_prefix_tokens=0)
    return resampled

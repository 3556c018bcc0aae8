"""Position tables that timm leaves at their native size, layout by layout, against timm's own functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from simmat_plugin_timm.positions import resized
from timm.layers import (
    resample_abs_pos_embed,
    resample_abs_pos_embed_nhwc,
    resize_rel_pos_bias_table,
    resize_rel_pos_bias_table_levit,
)
from timm.models.nest import blockify, deblockify
from torch import Tensor

DRAWN = torch.Generator().manual_seed(0)
ROWS = torch.randn(1, 8, 8, 6, generator=DRAWN)
OFFSETS = torch.randn(3, 49, generator=DRAWN)
WINDOWS = torch.randn(49, 3, generator=DRAWN)


def brought(table: Tensor, layout: str, shape: tuple[int, ...]) -> Tensor:
    """Bring one table among others to a shape."""
    other = torch.ones(2)
    state = resized({"pos": table, "b": other}, {"pos": torch.Size(shape), "b": torch.Size([3])}, {"p.s": layout})
    assert state["b"] is other
    return state["pos"]


@pytest.mark.parametrize(
    ("layout", "table", "expected"),
    [
        ("tokens", ROWS.flatten(1, 2), resample_abs_pos_embed(ROWS.flatten(1, 2), [12, 12], num_prefix_tokens=0)),
        ("rows", ROWS, resample_abs_pos_embed_nhwc(ROWS, [12, 12])),
        ("planes", ROWS.permute(0, 3, 1, 2), resample_abs_pos_embed_nhwc(ROWS, [12, 12]).permute(0, 3, 1, 2)),
        ("blocks", blockify(ROWS, 4), blockify(resample_abs_pos_embed_nhwc(ROWS, [12, 12]), 6)),
        ("offsets", OFFSETS, resize_rel_pos_bias_table_levit(OFFSETS.T, (100, 3)).T),
        ("windows", WINDOWS, resize_rel_pos_bias_table(WINDOWS, (6, 6), (121, 3))),
    ],
)
def test_a_table_is_interpolated_as_timm_interpolates_its_like(layout: str, table: Tensor, expected: Any) -> None:
    """Read in another order it would scramble the image without an error."""
    torch.testing.assert_close(brought(table, layout, tuple(expected.shape)), expected, atol=1e-5, rtol=1e-5)
    assert brought(table, layout, tuple(table.shape)) is table


def test_blocks_are_read_as_the_image_they_cut() -> None:
    """timm resizes NesT's tables under a name that its networks no longer have."""
    rows = torch.arange(8.0)[:, None].expand(8, 8)[None, ..., None]
    larger = deblockify(brought(blockify(rows, 4), "blocks", (1, 4, 64, 1)), 8)[0, ..., 0]
    torch.testing.assert_close(larger, larger[:, :1].expand(16, 16))
    assert (larger[1:, 0] > larger[:-1, 0] - 1e-4).all()


def test_a_table_of_another_kind_is_left_for_the_loader_to_refuse() -> None:
    """Weights of another model must not be bent until they fit."""
    table = torch.zeros(4, 4)
    assert brought(table, "tokens", (1, 16, 4)) is table

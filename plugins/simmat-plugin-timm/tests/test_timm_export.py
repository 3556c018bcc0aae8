"""As ONNX, a model of every family gives the masks that it gives in torch, or cannot be exported."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("simmat_plugin_export")


@pytest.mark.slow
def test_a_family_as_onnx_gives_the_masks_of_torch(family: Any) -> None:
    """What torch.onnx or onnxruntime cannot do is refused by `simmat export`; other masks would be worse."""
    from exports import difference_of_graphs

    try:
        difference = difference_of_graphs(family.ours(), family.size)
    except Exception as error:  # onnxruntime's own errors share no base
        pytest.skip(f"{family.model} cannot be exported: {str(error)[:200]}")
    assert difference < 1e-3

"""As ONNX, a model of every family gives the masks that it gives in torch."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("simmat_plugin_export")


@pytest.mark.slow
def test_a_family_as_onnx_gives_the_masks_of_torch(tiny: Any) -> None:
    """`simmat export` refuses what does not; a family that is offered for training should not be refused then."""
    from exports import difference_of_graphs

    assert difference_of_graphs(tiny.build(), tiny.size) < 1e-3

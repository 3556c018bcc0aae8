"""As ONNX, the U-Net gives the masks that it gives in torch."""

from __future__ import annotations

import pytest
from simmat_plugin_unet.spec import UNET

from simmat.assemble import build_foundation

pytest.importorskip("simmat_plugin_export")


@pytest.mark.slow
def test_as_onnx_it_gives_the_masks_of_torch() -> None:
    """Any number of clicks is drawn into the prompt's plane, not only those that it was traced with."""
    from exports import difference_of_graphs

    assert (
        difference_of_graphs(
            build_foundation(UNET, image_size=64, weights=None, seed=0), 64
        )
        < 1e-3
    )

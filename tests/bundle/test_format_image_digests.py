"""The record of the images that a bundle was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import change_json, tiny_bundle

from simmat.bundle import ImageDigests, read_bundle_spec
from simmat.errors import BundleError
from simmat.types import Window


def test_a_window_is_known_by_its_pixels() -> None:
    """Blocks of one image are in all splits, and another --crop cuts other windows."""
    block, digest = Window(0, 0, 32, 32), np.zeros((1, 32), np.uint8)
    found = ImageDigests.of(digest, [block])
    assert found is not None
    for window, known in (
        (Window(31, 31, 40, 40), True),
        (Window(0, 32, 32, 64), False),
        (None, True),
    ):
        assert found.has(digest, [window]) == [known]
        assert found.has(digest + 1, [window]) == [False]
    whole = ImageDigests.of(digest, [None])
    assert whole is not None
    assert whole.has(digest, [block]) == [True]


@pytest.mark.parametrize(
    "record",
    [
        {"digests": "AAAAAAA="},
        {"digests": "no base64"},
        {"digests": "", "windows": "AA=="},
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, record: dict[str, str]) -> None:
    """It must not count as a bundle that saw no image."""
    bundle = tiny_bundle(tmp_path / "bundle")
    change_json(bundle, trained_on=record)
    with pytest.raises(BundleError, match=r"trained_on: .*digests"):
        read_bundle_spec(bundle)

"""The way of planes into the square input and of logits back out of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from simmat.data.instances import pixels_under_centres, region_from_mask
from simmat.data.pipeline import content_mask, resize_planes, resized_region
from simmat.sensors.normalize import normalize
from simmat.types import Aspect, Channel, Letterbox, SensorImage


def smooth(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return random planes."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def all_valid(planes: torch.Tensor) -> torch.Tensor:
    """Return a validity of nothing missing."""
    return torch.ones_like(planes, dtype=torch.bool)


def measured(planes: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return planes as `normalize` gives them, here of mean 0 and standard deviation 1: 0 where invalid."""
    channels = tuple(
        Channel(f"band{index}", "counts", "count").with_statistics(0, 1)
        for index in range(len(planes))
    )
    return torch.from_numpy(
        normalize(SensorImage(planes.numpy(), valid.numpy(), channels), channels)
    )


def test_an_image_of_the_right_size_passes_bit_for_bit() -> None:
    """Resampling without need would blur, and break parity with SAM."""
    planes = smooth(4, 32, 32)
    assert torch.equal(
        resize_planes(planes, all_valid(planes), Letterbox((32, 32), 32)), planes
    )


def test_the_content_lies_top_left_and_the_rest_is_zero() -> None:
    """Prompts and the way back count on this geometry."""
    planes = smooth(2, 20, 32) + 9
    letterbox = Letterbox((20, 32), 32)
    out = resize_planes(planes, all_valid(planes), letterbox)
    mask = content_mask(letterbox)
    assert out.shape == (2, 32, 32)
    assert torch.equal(out[:, :20], planes)
    assert (out[:, ~mask] == 0).all()
    assert mask[:20].all()
    assert not mask[20:].any()


@pytest.mark.parametrize("size_hw", [(100, 73), (20, 11)], ids=str)
def test_it_is_the_antialiased_bilinear_filter_of_pil(size_hw: tuple[int, int]) -> None:
    """SAM was trained on PIL's filter; PIL in float, channel by channel, is the oracle."""
    planes = smooth(2, *size_hw)
    letterbox = Letterbox(size_hw, 32)
    height, width = letterbox.scaled_hw
    expected = [
        np.asarray(
            Image.fromarray(plane.numpy()).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for plane in planes
    ]
    out = resize_planes(planes, all_valid(planes), letterbox)[:, :height, :width]
    np.testing.assert_allclose(out.numpy(), np.stack(expected), atol=1e-5)


def triangle(planes: np.ndarray, size: int) -> np.ndarray:
    """Filter the last axis to `size` values with a triangle that is as wide as an output pixel, or an input pixel."""
    length = planes.shape[-1]
    scale = length / size
    centres = (np.arange(size)[:, None] + 0.5) * scale
    # (size, length)
    weights = np.clip(
        1 - np.abs(np.arange(length) + 0.5 - centres) / max(scale, 1), 0, None
    )
    return planes @ (weights / weights.sum(axis=1, keepdims=True)).T


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(
    "size_hw",
    [(3000, 20), (20, 3000), (137, 1), (1, 137), (40, 1), (1, 40), (5, 300)],
    ids=str,
)
@pytest.mark.parametrize("aspect", ["pad", "stretch"])
def test_strips_are_filtered_along_their_length(
    size_hw: tuple[int, int], count: int, aspect: Aspect
) -> None:
    """torch repeats the first row of what becomes one pixel wide; a line scan would train on one constant."""
    planes = smooth(count, *size_hw)
    letterbox = Letterbox(size_hw, 64, aspect)
    height, width = letterbox.scaled_hw
    rows = triangle(planes.numpy().astype(np.float64), width)
    expected = triangle(rows.swapaxes(-1, -2), height).swapaxes(-1, -2)
    out = resize_planes(planes, all_valid(planes), letterbox)[:, :height, :width]
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


def test_invalid_pixels_bleed_into_nothing() -> None:
    """A hot dead pixel, or a NaN, must not change its neighbours when an image shrinks."""
    planes = torch.full((2, 64, 64), 5.0)
    valid = all_valid(planes)
    valid[0, 10:13, 20:23] = False
    planes[0, 10:13, 20:23] = float("nan")
    out = resize_planes(measured(planes, valid), valid, Letterbox((64, 64), 32))
    seen = out[out != 0]
    torch.testing.assert_close(seen, torch.full_like(seen, 5.0))
    assert torch.isfinite(out).all()
    assert (out[1] == 5).all()


@pytest.mark.parametrize(
    "holes", ["around", "rows", "anywhere", "in one channel", "everywhere"]
)
@pytest.mark.parametrize("size_hw", [(80, 100), (100, 41), (20, 25), (600, 3)], ids=str)
def test_values_are_divided_by_the_valid_share_under_them(
    size_hw: tuple[int, int], holes: str
) -> None:
    """Equal rows and equal channels are resized once, which may not show."""
    (height, width), letterbox = size_hw, Letterbox(size_hw, 32)
    valid = torch.ones(3, height, width, dtype=torch.bool)
    if holes == "around":
        valid[:] = False
        valid[:, height // 5 : height // 2, width // 3 :] = True
    elif holes == "rows":
        valid[:, ::7] = False
    elif holes == "everywhere":
        valid[:] = False
    else:
        gone = (
            torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < 0.4
        )
        valid[1 if holes == "in one channel" else slice(None), gone] = False
    planes = measured(smooth(3, height, width), valid)
    out = resize_planes(planes, valid, letterbox)
    sums = resize_planes(planes, torch.ones_like(valid), letterbox)
    share = resize_planes(valid.float(), torch.ones_like(valid), letterbox)
    expected = torch.where(share > 0.4999, sums / share, torch.zeros(()))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "scaled"), [(26, 23), (30, 11), (48, 44), (52, 23), (7, 7), (3, 9)]
)
def test_a_centre_on_the_border_of_two_pixels_lies_in_the_second(
    size: int, scaled: int
) -> None:
    """Class maps, ignored pixels, scores and pictures agree on the pixel, however its number would be rounded."""
    expected = [
        int(Fraction(2 * place + 1, 2) * size / scaled) for place in range(scaled)
    ]
    assert pixels_under_centres(size, scaled).tolist() == expected


@pytest.mark.parametrize("aspect", ["pad", "stretch"])
@pytest.mark.parametrize(
    "size_hw", [(51, 64), (100, 37), (32, 32), (9, 7), (200, 3), (1, 90)]
)
def test_a_region_covers_what_its_resized_mask_does(
    size_hw: tuple[int, int], aspect: Aspect
) -> None:
    """Targets are those of the resizing of images, wherever the region is and whether it shrinks or grows."""
    letterbox, rng = Letterbox(size_hw, 32, aspect), np.random.default_rng(0)
    masks, regions = [], []
    for _ in range(20):
        y0, x0 = (int(rng.integers(length)) for length in size_hw)
        y1, x1 = (
            int(rng.integers(y0, size_hw[0])) + 1,
            int(rng.integers(x0, size_hw[1])) + 1,
        )
        mask = np.zeros(size_hw, np.bool_)
        mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.7
        if (region := region_from_mask(mask, None)) is not None:
            masks.append(mask)
            regions.append(region)
    for mask, region in zip(masks, regions, strict=True):
        plane = torch.from_numpy(mask[None].astype(np.float32))
        covered = resize_planes(
            plane, torch.ones_like(plane, dtype=torch.bool), letterbox
        )[0].numpy()
        threshold = min(0.5, covered.max() * 0.999)
        clear = abs(covered - threshold) > 1e-5  # rounding decides the rest
        found = resized_region(region, letterbox).mask((32, 32))
        assert np.array_equal(found[clear], covered[clear] > threshold)

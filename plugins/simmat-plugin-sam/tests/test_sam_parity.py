"""Our way from a colour picture to masks gives what segment_anything's own predictor gives.

The oracle is built from the package's classes with the same weights: random, but spread so that logits are of order
one and masks hold both classes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from simmat_plugin_sam.model import sam_parts
from simmat_plugin_sam.specs import PIXEL_MEAN, PIXEL_STD, SAM_VIT_TINY
from simmat_testing.networks import build_network
from torch import nn

from simmat.data.pipeline import Pipeline, prompt_batch, restore_logits
from simmat.model import SimMAT
from simmat.sensors.builtin import Rgb
from simmat.sensors.normalize import Statistics, fit_channels
from simmat.types import Letterbox, Prompt

SIZE = 128
CHANNELS = fit_channels(
    Rgb.channels,
    Statistics((0, 0, 0), (1, 1, 1), ((1, 0, 0), (0, 1, 0), (0, 0, 1)), (1, 1, 1)),
    pixel_mean=PIXEL_MEAN,
    pixel_std=PIXEL_STD,
)

POINTS = Prompt.points([(40, 30), (50.5, 33.25)], [(20, 60)])
BOX = Prompt(
    np.zeros((0, 2), np.float32),
    np.zeros(0, np.int64),
    box=np.array([10, 12, 70, 55.5], np.float32),
)
BOTH = Prompt(POINTS.point_coords, POINTS.point_labels, box=BOX.box)
EARLIER = (
    np.random.default_rng(5).normal(size=(SIZE // 4, SIZE // 4)).astype(np.float32) * 4
)
MASKED = Prompt(POINTS.point_coords, POINTS.point_labels, mask_input=EARLIER)
ONLY_MASK = Prompt(
    np.zeros((0, 2), np.float32), np.zeros(0, np.int64), mask_input=EARLIER
)
PROMPTS = {
    "points": POINTS,
    "box": BOX,
    "both": BOTH,
    "points and mask": MASKED,
    "mask": ONLY_MASK,
}


@pytest.fixture(scope="module")
def ours() -> SimMAT:
    """Return the tiny SAM behind an identity MAT, its weights spread so that nothing is near zero."""
    model = build_network(
        SAM_VIT_TINY,
        transfer="identity",
        channels=CHANNELS,
        zero_shot=np.eye(3).tolist(),
        image_size=SIZE,
        seed=3,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.foundation.state_dict().items():
            spread = 0.5 if "rel_pos" in name or "pos_embed" in name else 0.1
            tensor += spread * torch.randn(tensor.shape, generator=generator)
            if "output_hypernetworks_mlps" in name and "layers.2" in name:
                tensor *= 20
    return model


@pytest.fixture(scope="module")
def theirs(ours: SimMAT) -> SamPredictor:
    """Return segment_anything's predictor with the weights of `ours`."""
    options = SAM_VIT_TINY.options
    sam = Sam(
        ImageEncoderViT(
            img_size=SIZE,
            embed_dim=options["dim"],
            depth=options["depth"],
            num_heads=options["heads"],
            mlp_ratio=options["mlp_ratio"],
            out_chans=options["prompt_dim"],
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=options["window"],
            global_attn_indexes=options["global_blocks"],
        ),
        PromptEncoder(
            options["prompt_dim"],
            (SIZE // 16, SIZE // 16),
            (SIZE, SIZE),
            mask_in_chans=16,
        ),
        MaskDecoder(
            transformer_dim=options["prompt_dim"],
            transformer=TwoWayTransformer(
                2,
                options["prompt_dim"],
                options["decoder_heads"],
                options["decoder_mlp"],
            ),
            iou_head_hidden_dim=options["prompt_dim"],
        ),
    )
    sam.load_state_dict(sam_parts(ours.foundation).state_dict())
    return SamPredictor(sam.eval())


def picture(height: int, width: int) -> np.ndarray:
    """Return (H, W, 3) uint8: smooth shapes with some noise, so that resizing has something to do."""
    rng = np.random.default_rng([height, width])
    y, x = np.mgrid[0:height, 0:width]
    base = 127 + 90 * np.sin(x / 9 + rng.random() * 6)[..., None] * np.cos(
        y[..., None] / (7 + np.arange(3))
    )
    return np.clip(base + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(
        np.uint8
    )


def ask_ours(
    model: SimMAT, tmp_path: Path, pixels: np.ndarray, prompt: Prompt
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (4, H, W) and predicted IoU (4,) by SimMAT's way, from a file on disk."""
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    prepared = Pipeline(Rgb(), CHANNELS, SIZE)(
        Rgb().load({"rgb": tmp_path / "picture.png"})
    )
    with torch.inference_mode():
        embedding = model.encode(prepared.planes[None], prepared.content[None])
        answer = model.decode(
            embedding, prompt_batch([prompt], prepared.letterbox, torch.device("cpu"))
        )
        return restore_logits(answer.logits, prepared.letterbox)[0].numpy(), answer.iou[
            0
        ].numpy()


def ask_theirs(
    predictor: SamPredictor, pixels: np.ndarray, prompt: Prompt
) -> tuple[np.ndarray, np.ndarray]:
    """Return the same by segment_anything: the single mask, then the three of multimask output.

    It scales points by multiplying, we by keeping pixel centres; so that both ask about one place of the input, it is
    given the point that its rule brings there.
    """
    predictor.set_image(pixels)
    points = len(prompt.point_coords) > 0
    height, width = pixels.shape[:2]
    frame = Letterbox((height, width), SIZE)
    scale = np.asarray([frame.scaled_hw[1] / width, frame.scaled_hw[0] / height])
    coords = (frame.points_to_input(prompt.point_coords) / scale).astype(np.float32)
    given = {
        "point_coords": coords if points else None,
        "point_labels": prompt.point_labels if points else None,
        "box": prompt.box,
        "mask_input": prompt.mask_input[None]
        if prompt.mask_input is not None
        else None,
        "return_logits": True,
    }
    single, multiple = (
        predictor.predict(**given, multimask_output=many) for many in (False, True)
    )
    return np.concatenate([single[0], multiple[0]]), np.concatenate(
        [single[1], multiple[1]]
    )


@pytest.mark.parametrize("size_hw", [(128, 128), (128, 77), (51, 128)], ids=str)
@pytest.mark.parametrize("kind", PROMPTS)
def test_masks_and_scores_equal_sam_predictor_where_nothing_is_resized(
    ours: SimMAT,
    theirs: SamPredictor,
    tmp_path: Path,
    size_hw: tuple[int, int],
    kind: str,
) -> None:
    """A SAM that we changed on the way in or out would make every later comparison meaningless."""
    pixels = picture(*size_hw)
    logits, iou = ask_ours(ours, tmp_path, pixels, PROMPTS[kind])
    expected_logits, expected_iou = ask_theirs(theirs, pixels, PROMPTS[kind])
    share = (expected_logits > 0).mean(axis=(1, 2))
    assert expected_logits.std() > 1
    assert ((share > 0.05) & (share < 0.95)).all()
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(iou, expected_iou, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size_hw", [(300, 211), (61, 97), (200, 200)], ids=str)
@pytest.mark.parametrize("kind", ["points", "both"])
def test_masks_agree_within_the_rounding_of_resizing(
    ours: SimMAT,
    theirs: SamPredictor,
    tmp_path: Path,
    size_hw: tuple[int, int],
    kind: str,
) -> None:
    """PIL rounds a resized picture to whole grey levels, we do not; that is all that may differ."""
    pixels = picture(*size_hw)
    logits, iou = ask_ours(ours, tmp_path, pixels, PROMPTS[kind])
    expected_logits, expected_iou = ask_theirs(theirs, pixels, PROMPTS[kind])
    assert np.abs(logits - expected_logits).max() < 0.08 * expected_logits.std()
    assert ((logits > 0) == (expected_logits > 0)).mean() > 0.997
    np.testing.assert_allclose(iou, expected_iou, atol=2e-3)


@pytest.mark.parametrize("size_hw", [(45, 70), (64, 64), (13, 9), (200, 150)], ids=str)
def test_logits_come_back_as_sam_brings_them(size_hw: tuple[int, int]) -> None:
    """The package's own postprocess_masks is the oracle."""
    frame = Letterbox(size_hw, 64)
    encoder = nn.Identity()
    encoder.img_size = 64  # all that postprocess_masks asks of an encoder
    sam = Sam(encoder, nn.Identity(), nn.Identity())
    logits = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = sam.postprocess_masks(logits, frame.scaled_hw, size_hw)
    assert torch.equal(restore_logits(logits, frame), expected)

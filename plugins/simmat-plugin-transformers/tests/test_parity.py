"""What comes through SimMAT's door equals what the library itself answers, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from simmat_plugin_transformers.library import quiet
from simmat_plugin_transformers.specs import spec
from torch import Tensor

from simmat.assemble import build_foundation
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def image(size: int, images: int = 1) -> Tensor:
    return torch.randn(
        images, 3, size, size, generator=torch.Generator().manual_seed(3)
    )


def encoded(model: Any, pixels: Tensor) -> ImageEmbedding:
    with torch.no_grad():
        embedding: ImageEmbedding = model.backbone.encode(model.backbone.embed(pixels))
    return embedding


def asked(model: Any, pixels: Tensor, prompts: PromptBatch) -> MaskPrediction:
    with torch.no_grad():
        answer: MaskPrediction = model.decoder.decode(encoded(model, pixels), prompts)
    return answer


POINTS = torch.tensor(
    [
        [[10.0, 20.0], [33.0, 41.0]],
        [[50.0, 7.0], [3.0, 30.0]],
        [[25.0, 25.0], [0.0, 0.0]],
    ]
)
LABELS = torch.tensor([[1, 0], [1, 1], [0, -1]])
BOXES = torch.tensor([[4.0, 6, 30, 50], [20.0, 2, 55, 31], [0.0, 0, 12, 9]])
NONE = POINTS[:, :0], LABELS[:, :0]


def prompts(kind: str, grid: int) -> PromptBatch:
    """Three prompts about one image."""
    masks = (
        torch.randn(
            3, 1, 4 * grid, 4 * grid, generator=torch.Generator().manual_seed(4)
        )
        * 5
    )
    points = POINTS, LABELS
    return PromptBatch(
        torch.zeros(3, dtype=torch.int64),
        *(points if "point" in kind else NONE),
        boxes=BOXES if "box" in kind else None,
        mask_input=masks if "mask" in kind else None,
    )


def library_answer(
    model: Any, pixels: Tensor, given: PromptBatch
) -> tuple[Tensor, Tensor]:
    """Ask the library's model about one image, each prompt on its own: masks (K, 4, h, w) and iou (K, 4)."""
    rows = []
    for k in range(len(given.point_coords)):
        points = given.point_coords.shape[1] > 0
        asks: dict[str, Any] = {
            "pixel_values": pixels,
            "input_points": given.point_coords[k][None, None] if points else None,
            "input_labels": given.point_labels[k][None, None] if points else None,
            "input_boxes": given.boxes[k][None, None]
            if given.boxes is not None
            else None,
            "input_masks": given.mask_input[k][None]
            if given.mask_input is not None
            else None,
        }
        with torch.no_grad():
            one, three = (
                model(**asks, multimask_output=several) for several in (False, True)
            )
        rows.append(
            [
                torch.cat([one[key][0, 0], three[key][0, 0]])
                for key in ("pred_masks", "iou_scores")
            ]
        )
    return torch.stack([masks for masks, _ in rows]), torch.stack(
        [iou for _, iou in rows]
    )


@pytest.mark.parametrize(
    "kind", ["points", "box", "points and box", "points and mask", "mask"]
)
def test_masks_and_iou_equal_the_librarys(tiny: Any, kind: str) -> None:
    """All four masks from one pass are those the library gives in two, whatever is asked with."""
    pixels = image(tiny.size)
    given = prompts(kind, 4)
    answer = asked(tiny.build(), pixels, given)
    masks, iou = library_answer(tiny.original, pixels, given)
    assert masks.std() > 0.1  # an answer that could be wrong
    torch.testing.assert_close(answer.logits, masks, **CLOSE)
    torch.testing.assert_close(answer.iou, iou, **CLOSE)


def _resized_sam2(original: Any) -> Any:
    """The library's own model at another size: all that its positions need is in its code."""
    other = transformers.Sam2Model(original.config)
    other.load_state_dict(original.state_dict())
    other.prompt_encoder.image_embedding_size, other.prompt_encoder.input_image_size = (
        (8, 8),
        128,
    )
    other.prompt_encoder.mask_input_size = (32, 32)
    other.backbone_feature_sizes = [[32, 32], [16, 16], [8, 8]]
    return other.eval()


def test_sam2_at_another_size_equals_the_library_at_that_size(tiny_of: Any) -> None:
    """Its background positions are interpolated by the library itself."""
    pixels = image(128)
    given = prompts("points and mask", 8)
    answer = asked(tiny_of("sam2").build(128), pixels, given)
    masks, iou = library_answer(_resized_sam2(tiny_of("sam2").original), pixels, given)
    torch.testing.assert_close(answer.logits, masks, **CLOSE)
    torch.testing.assert_close(answer.iou, iou, **CLOSE)


def test_sam3_at_another_size_equals_the_library_built_for_it(tiny_of: Any) -> None:
    """Rotary positions are laid anew over the grid, as the library does at construction."""
    config = type(tiny_of("sam3").original.config).from_dict(
        tiny_of("sam3").original.config.to_dict()
    )
    config.vision_config.image_size = config.prompt_encoder_config.image_size = 112
    config.vision_config.backbone_feature_sizes = [[32, 32], [16, 16], [8, 8]]
    other = transformers.Sam3TrackerModel(config)
    other.load_state_dict(tiny_of("sam3").original.state_dict())
    pixels = image(112)
    given = prompts("points and mask", 8)
    answer = asked(tiny_of("sam3").build(112), pixels, given)
    masks, iou = library_answer(other.eval(), pixels, given)
    torch.testing.assert_close(answer.logits, masks, **CLOSE)
    torch.testing.assert_close(answer.iou, iou, **CLOSE)


def test_the_fourth_level_of_a_published_sam3_is_left_out(
    tiny_of: Any, tmp_path: Path
) -> None:
    """No decoder reads it: what stands for no memory belongs to the third, and a level unread gets no gradient."""
    three = tiny_of("sam3")
    config = type(three.original.config).from_dict(three.original.config.to_dict())
    config.vision_config.scale_factors = [4.0, 2.0, 1.0, 0.5]
    with torch.random.fork_rng(devices=[]), quiet():
        four = transformers.Sam3TrackerModel(config)
        four.load_state_dict(three.original.state_dict(), strict=False)
        four.save_pretrained(tmp_path)
    found = spec(str(tmp_path))
    assert found is not None
    assert found.weights is not None
    model: Any = build_foundation(
        found, image_size=three.size, weights=found.weights.path, seed=0
    )
    pixels, given = image(three.size), prompts("points", 4)
    masks, _ = library_answer(three.original, pixels, given)
    torch.testing.assert_close(asked(model, pixels, given).logits, masks, **CLOSE)
    sum(
        level.sum()
        for level in model.backbone.encode(model.backbone.embed(pixels)).levels
    ).backward()
    assert [
        name for name, p in model.backbone.named_parameters() if p.grad is None
    ] == []

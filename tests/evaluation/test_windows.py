"""Scores computed within the boxes of objects and answers, against the same worked out on whole images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import ndimage
from scripted_model import Scripted
from torch import Tensor

from simmat.data.instances import (
    Annotation,
    Instance,
    corrective_click,
    region_from_mask,
)
from simmat.data.pipeline import (
    PreparedImage,
    content_mask,
    regions_from_logits,
    restore_logits,
)
from simmat.evaluation import COMPAT, ONE_CLICK, ObjectScore, Protocol
from simmat.evaluation.prompts import (
    ScoredImage,
    find_targets,
    grid_hw,
    resize_nearest,
    score_objects,
    scored_pixels,
)
from simmat.evaluation.scores import boundary_iou, boundary_width, mask_iou
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.nn.dense_head import upsample_logits
from simmat.plugin_specs import MetricSpec
from simmat.predictor import encode_image
from simmat.types import Aspect, BoolArray, Letterbox

CLICKS = Protocol("clicks", clicks=4)
BOUNDARY = MetricSpec(
    "boundary_iou", "boundary IoU", "simmat.evaluation.scores:boundary_iou"
)

# Whole-image oracles: the definitions, with no box anywhere.


def plain_iou(mask: BoolArray, truth: BoolArray, scored: BoolArray) -> float:
    shared, union = (
        np.count_nonzero(mask & truth & scored),
        np.count_nonzero((mask | truth) & scored),
    )
    return float(np.float64(shared) / np.float64(max(union, 1)))


def plain_band(mask: BoolArray, width: int) -> BoolArray:
    distance = ndimage.distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[
        1:-1, 1:-1
    ]
    return cast(BoolArray, mask & (distance <= width))


def plain_boundary_iou(
    mask: BoolArray, truth: BoolArray, scored: BoolArray, width: int
) -> float | None:
    true = plain_band(truth, width) & scored
    return plain_iou(plain_band(mask, width), true, scored) if true.any() else None


def plain_centre(mask: BoolArray) -> tuple[float, float]:
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(distance)), mask.shape)
    return float(column), float(row)


def plain_correction(
    truth: BoolArray, mask: BoolArray, ignore: BoolArray
) -> tuple[tuple[float, float], int] | None:
    """The larger of the largest missing and the largest superfluous component."""
    pieces = []
    for wrong, on_object in (
        (truth & ~mask & ~ignore, 1),
        (mask & ~truth & ~ignore, 0),
    ):
        numbered, count = ndimage.label(wrong, structure=np.ones((3, 3)))
        pieces += [(numbered == number, on_object) for number in range(1, count + 1)]
    if not pieces:
        return None
    # the first of equals
    piece, on_object = max(pieces, key=lambda item: np.count_nonzero(item[0]))
    return plain_centre(piece), on_object


def plain_masks(logits: Tensor, letterbox: Letterbox, protocol: Protocol) -> BoolArray:
    if protocol.grid == "original":
        return cast(BoolArray, (restore_logits(logits, letterbox) > 0).numpy())
    return cast(
        BoolArray,
        (
            upsample_logits(logits, (letterbox.size // 4, letterbox.size // 4)) > 0
        ).numpy(),
    )


def whole(region: Instance | None, size_hw: tuple[int, ...]) -> BoolArray:
    height, width = size_hw
    return (
        np.zeros((height, width), np.bool_)
        if region is None
        else region.mask((height, width))
    )


def blobs(
    rng: np.random.Generator, *shape: int, sigma: float = 2, level: float = 0.02
) -> BoolArray:
    """Ragged masks, often of several pieces and at the border."""
    noise = rng.standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [sigma, sigma])
    return cast(BoolArray, smooth > level)


def pairs(rng: np.random.Generator) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Truth and prediction in 40 x 56: overlapping, far apart, at borders, equal, empty, and everywhere."""
    for _ in range(12):
        truth, mask = blobs(rng, 2, 40, 56)
        window = np.zeros_like(truth)
        y, x = rng.integers(0, 30), rng.integers(0, 46)
        window[y : y + 10, x : x + 10] = True
        yield truth, mask
        yield truth & window, mask
        yield truth & window, mask & window
        yield truth & window, mask & ~window
        yield truth & window, truth & window
        yield truth & window, np.zeros_like(truth)
        yield truth & window, ~np.zeros_like(truth)
    corners = np.zeros((2, 40, 56), np.bool_)
    corners[0, :3, :4] = corners[1, -2:, -5:] = True
    yield corners[0], corners[1]
    yield corners[1], corners[0]
    yield corners[0], corners.any(0)


@pytest.mark.parametrize("ignored", ["nothing", "blobs", "a side", "most"])
def test_figures_within_boxes_are_those_of_the_whole_image(ignored: str) -> None:
    """Published scores stand on every pixel; a box is for speed only."""
    rng = np.random.default_rng(0)
    ignore = {
        "nothing": np.zeros((40, 56), np.bool_),
        "blobs": blobs(rng, 40, 56, level=0.1),
        "a side": np.broadcast_to(np.arange(56) >= 40, (40, 56)),
        "most": rng.random((40, 56)) < 0.9,
    }[ignored]
    for truth, mask in pairs(rng):
        region, found = region_from_mask(truth, None), region_from_mask(mask, None)
        if region is None:
            continue
        assert mask_iou(found, region, ~ignore) == plain_iou(mask, truth, ~ignore)
        for width in (1, 2, 3, 7, 40):
            expected = plain_boundary_iou(mask, truth, ~ignore, width)
            assert boundary_iou(found, region, ~ignore, width) == expected
        assert corrective_click(region, found, ignore) == plain_correction(
            truth, mask, ignore
        )


FRAMES = [
    pytest.param((1, 64), (70, 100), "pad", id="larger than the input"),
    pytest.param((16, 64), (300, 211), "pad", id="much larger"),
    pytest.param((16, 64), (300, 211), "stretch", id="squashed"),
    pytest.param((32, 128), (40, 23), "pad", id="smaller than the input"),
    pytest.param((64, 256), (256, 256), "pad", id="of the input's size"),
    pytest.param((64, 64), (9, 200), "pad", id="a strip"),
]


@pytest.mark.parametrize(("sides", "original_hw", "aspect"), FRAMES)
@pytest.mark.parametrize(
    "protocol", [ONE_CLICK, COMPAT], ids=lambda protocol: protocol.grid
)
def test_masks_are_those_of_logits_resized_as_a_whole(
    sides: tuple[int, int],
    original_hw: tuple[int, int],
    aspect: Aspect,
    protocol: Protocol,
) -> None:
    """Also an empty and a full one."""
    side, size = sides
    letterbox = Letterbox(original_hw, size, aspect)
    logits = torch.from_numpy(
        np.random.default_rng(1).standard_normal((3, 4, side, side))
    ).float()
    logits[2, 1], logits[2, 2] = -1, 1
    expected = plain_masks(logits, letterbox, protocol)
    found = regions_from_logits(
        logits,
        letterbox,
        None if protocol is ONE_CLICK else grid_hw(letterbox, protocol),
    )
    for k, m in np.ndindex(*expected.shape[:2]):
        assert np.array_equal(whole(found[k][m], expected.shape[2:]), expected[k, m])


def test_logits_above_zero_in_the_padding_alone_find_nothing() -> None:
    """Below a wide image there is no image."""
    logits = torch.full((1, 1, 16, 16), -1.0)
    logits[..., 12:, 3:9] = 1
    assert regions_from_logits(logits, Letterbox((20, 40), 64)) == [[None]]


def test_the_window_of_a_mask_is_written_to_json() -> None:
    """NumPy's integers stop a page of the annotator, and a file of results."""
    logits = torch.full((1, 1, 16, 16), -1.0)
    logits[..., 3:9, 4:8] = 1
    ((found,),) = regions_from_logits(logits, Letterbox((64, 64), 64))
    assert found is not None
    assert json.loads(json.dumps(found.window)) == list(found.window)


def disc_logits(side: int, centres_xy: Tensor, radius: float) -> Tensor:
    """(K, 4, side, side) logits of discs, whose sizes grow from mask to mask."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    # (K, side, side)
    distance = torch.hypot(
        x - centres_xy[:, 0, None, None], y - centres_xy[:, 1, None, None]
    )
    radii = radius * torch.tensor([1.0, 0.7, 1.2, 1.5])
    return (radii[:, None, None] - distance[:, None]) * 1.37


class Answering(Scripted):
    """Answers with the (K, M, h, w) logits that `answers` gives."""

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Keep the prompts and answer them."""
        self.asked.append(prompts)
        logits = self.answers(prompts)
        self.given.append(logits)
        count = logits.shape[1]
        return MaskPrediction(
            logits, torch.linspace(0.9, 0.5, count).expand(len(logits), count)
        )


def encoded(
    model: Scripted, label: Annotation, letterbox: Letterbox, protocol: Protocol
) -> ScoredImage:
    planes = torch.zeros(1, letterbox.size, letterbox.size)
    prepared = PreparedImage(planes, content_mask(letterbox), letterbox)
    targets, _ = find_targets(label, letterbox, protocol)
    scored = scored_pixels(label, letterbox, protocol)
    return ScoredImage(
        encode_image(cast(Any, model), prepared), targets, scored, protocol
    )


def random_label(
    rng: np.random.Generator, size_hw: tuple[int, int], count: int
) -> Annotation:
    """Blobs that lie anywhere, at the borders too, some of them under ignored pixels."""
    regions = []
    for _ in range(count):
        height, width = rng.integers(2, 30, 2)
        corner = (
            int(rng.integers(0, size_hw[0] - height + 1)),
            int(rng.integers(0, size_hw[1] - width + 1)),
        )
        region = region_from_mask(blobs(rng, height, width, level=-0.02), 1, corner)
        if region is not None:
            regions.append(region)
    return Annotation(size_hw, tuple(regions), blobs(rng, *size_hw, level=0.06))


@pytest.mark.parametrize("original_hw", [(120, 90), (37, 50)])
@pytest.mark.parametrize(
    "protocol", [CLICKS, COMPAT], ids=lambda protocol: protocol.name
)
def test_the_scores_of_an_image_are_those_of_whole_images(
    original_hw: tuple[int, int], protocol: Protocol
) -> None:
    """From label to score: targets, clicks, IoU of all masks, boundary, and every corrective click."""
    rng = np.random.default_rng(3)
    noise = torch.Generator().manual_seed(0)

    def answers(prompts: PromptBatch) -> Tensor:
        """Discs around the first click, some far off, some nothing, with speckles elsewhere."""
        first = prompts.point_coords[:, 0] / 4
        logits = disc_logits(
            16, first + torch.randn(first.shape, generator=noise) * 3, 3
        )
        logits += 2 * torch.randn(logits.shape, generator=noise)
        logits[::3] -= 100 * (
            torch.rand(len(logits[::3]), 4, 1, 1, generator=noise) > 0.5
        )
        return logits

    label, model = random_label(rng, original_hw, 36), Answering(answers)
    letterbox = Letterbox(
        original_hw, 64, "stretch" if protocol.grid == "quarter" else "pad"
    )
    image = encoded(model, label, letterbox, protocol)
    scores = score_objects(image, "s", [BOUNDARY])
    scored = image.scored
    assert np.array_equal(scored, resize_nearest(~label.ignore, scored.shape))
    wholes = [region.mask(original_hw) for region in label.regions]
    input_hw = (
        (letterbox.size, letterbox.size) if protocol.grid == "quarter" else original_hw
    )
    assert [s.region for s in scores] == [
        index
        for index, mask in enumerate(wholes)
        if resize_nearest(mask & ~label.ignore, input_hw).any()
        and (resize_nearest(mask, scored.shape) & scored).any()
    ]
    truths = [resize_nearest(wholes[s.region], scored.shape) for s in scores]
    place = 0
    curves: dict[int, list[float]] = {}
    clicks: dict[int, Any] = {}
    rows: list[int] = []
    for prompts, logits in zip(model.asked, model.given, strict=True):
        masks = plain_masks(logits, letterbox, protocol)
        if prompts.point_coords.shape[1] == 1:
            rows = list(range(place, place + len(masks)))
            place += len(masks)
            for row, four in zip(rows, masks, strict=True):
                check_first(
                    scores[row], four, truths[row], label, scored, letterbox, protocol
                )
        else:
            rows = [row for row in rows if clicks[row] is not None]
            for row, points, labels in zip(
                rows, prompts.point_coords, prompts.point_labels, strict=True
            ):
                expected_xy, on_object = clicks[row]
                assert np.array_equal(
                    points[-1].numpy(),
                    letterbox.points_to_input(np.asarray(expected_xy)),
                )
                assert int(labels[-1]) == on_object
        for row, four in zip(rows, masks, strict=True):
            curves.setdefault(row, []).append(plain_iou(four[0], truths[row], scored))
            clicks[row] = plain_correction(truths[row], four[0], ~scored)
    assert place == len(scores) > 16
    if protocol.clicks > 1:
        for row, curve in curves.items():
            assert scores[row].clicks == (
                *curve,
                *curve[-1:] * (protocol.clicks - len(curve)),
            )


def check_first(
    score: ObjectScore,
    masks: BoolArray,
    truth: BoolArray,
    label: Annotation,
    scored: BoolArray,
    letterbox: Letterbox,
    protocol: Protocol,
) -> None:
    """Compare all that is said of the first click with the whole image."""
    seen = label.regions[score.region].mask(label.size_hw) & ~label.ignore
    ious = [plain_iou(mask, truth, scored) for mask in masks]
    assert score.iou == ious[0]
    if protocol.alternatives:
        assert (score.iou_best_predicted, score.iou_oracle) == (ious[1], max(ious[1:]))
    if protocol.grid == "original":
        assert score.click_xy == plain_centre(seen)
        width = boundary_width(letterbox.original_hw)
        assert score.metrics["boundary_iou"] == plain_boundary_iou(
            masks[0], truth, scored, width
        )
    else:
        rows, columns = np.nonzero(
            resize_nearest(seen, (letterbox.size, letterbox.size))
        )
        middle = np.asarray([columns[len(rows) // 2], rows[len(rows) // 2]])
        assert score.click_xy == tuple(letterbox.points_to_original(middle).tolist())

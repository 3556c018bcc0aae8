"""RGB scores of `lite`: `python -m simmat_plugin_lite.score --data DIR/rgb-regions --out scores.json`.

Masks are compared at the original resolution. The first click is at the region's deepest place, each
later one at the centre of the largest error; the mask before is fed back. NoC@85 is the number of clicks
to an IoU of 0.85, 20 where that is never reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from simmat.data.clicks import center_click, corrective_click, tight_box
from simmat.files import atomic_write_json, check_writable
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch, build_foundation
from simmat.geometry import Frame
from simmat.nn.device import pick_device, wait_for
from simmat.nn.resize import resize_planes, restore_logits
from simmat_plugin_lite.command import run_command, whole_number
from simmat_plugin_lite.model import LiteModel
from simmat_plugin_lite.regions import Photo, read_photos, region_values
from simmat_plugin_lite.spec import LITE, PIXEL_MEAN, PIXEL_STD

CLICKS = (1, 3, 5, 8)
MOST_CLICKS = 20
GOOD_IOU = 0.85
TOGETHER = 16
"""Regions asked about together; bounds memory, changes no figure."""
SMALLEST_PX = (100, 400)
"""Smallest region in pixels of the original, one table row each."""


@dataclass(frozen=True)
class RegionScore:
    """How well one region was found.

    Attributes:
        source: of the photograph.
        area: pixels.
        clicks: IoU of the single mask after 1, 2, … clicks.
        best: IoU after one click of the alternative with the highest predicted IoU.
        oracle: IoU after one click of the best of all masks.
        box: IoU from the tight box.
        noc85: clicks to IoU 0.85; None where that was not asked.
    """

    source: str
    area: int
    clicks: tuple[float, ...]
    best: float
    oracle: float
    box: float
    noc85: int | None


class EncodedPhoto:
    """A photograph, encoded once, that answers prompts with masks of the original size."""

    def __init__(self, model: LiteModel, image: np.ndarray, size: int, device: torch.device) -> None:
        self.model, self.device = model, device
        self.frame = Frame(image.shape[:2], size)
        planes = (image.astype(np.float32) - np.asarray(PIXEL_MEAN, np.float32)) / np.asarray(PIXEL_STD, np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))
        square = resize_planes(tensor, torch.ones_like(tensor, dtype=torch.bool), self.frame)
        self.embedding: ImageEmbedding = model.backbone.encode(model.backbone.embed(square[None].to(device)))

    def ask(
        self,
        points: np.ndarray,
        labels: np.ndarray,
        boxes: np.ndarray | None = None,
        mask: Tensor | None = None,
        *,
        alternatives: bool = False,
    ) -> tuple[MaskPrediction, Tensor]:
        """Ask K prompts: (K, N, 2) xy, (K, N) and (K, 4) in pixels of the original.

        Returns:
            the answer, and its masks (K, M, H, W) bool; the single mask alone unless `alternatives` are asked for.
        """
        to = self.device
        corners = None if boxes is None else self.frame.boxes_to_input(boxes)
        prompts = PromptBatch(
            image_index=torch.zeros(len(points), dtype=torch.long, device=to),
            point_coords=torch.from_numpy(self.frame.points_to_input(points)).to(to),
            point_labels=torch.from_numpy(labels).to(to),
            boxes=None if corners is None else torch.from_numpy(corners).to(to),
            mask_input=mask,
        )
        answer = self.model.decoder.decode(self.embedding, prompts)
        looked_at = answer.logits if alternatives else answer.logits[:, :1]
        return answer, restore_logits(looked_at.float(), self.frame) > 0


def iou_of(masks: Tensor, truth: np.ndarray) -> np.ndarray:
    """IoU of (K, M, H, W) masks with (K, H, W) truth: (K, M)."""
    right = torch.from_numpy(truth).to(masks.device)[:, None]
    return ((masks & right).sum((2, 3)) / (masks | right).sum((2, 3)).clamp(min=1)).cpu().numpy()


def score_regions(encoded: EncodedPhoto, truth: np.ndarray, source: str, rounds: int) -> Iterator[RegionScore]:
    """Score (K, H, W) regions of one photograph with up to `rounds` clicks."""
    points = np.array([[center_click(region)] for region in truth], np.float32)
    labels = np.ones((len(truth), 1), np.int64)
    boxes = np.stack([tight_box(region) for region in truth])
    _, boxed = encoded.ask(np.zeros((len(truth), 0, 2), np.float32), labels[:, :0], boxes)
    box = iou_of(boxed, truth)[:, 0]
    answer, masks = encoded.ask(points, labels, alternatives=True)
    ious = iou_of(masks, truth)
    best = ious[np.arange(len(truth)), 1 + answer.iou[:, 1:].argmax(1).cpu().numpy()]
    oracle = ious.max(1)
    curves = [[float(iou)] for iou in ious[:, 0]]
    asked, low, masks = np.arange(len(truth)), answer.logits[:, :1], masks[:, :1]
    for number in range(1, rounds):
        if number >= max(CLICKS):  # from here on only the number of clicks is asked for
            unsolved = np.array([max(curves[k]) < GOOD_IOU for k in asked], bool)
            if not unsolved.any():
                break
            asked, points, labels = asked[unsolved], points[unsolved], labels[unsolved]
            low, masks = low[torch.from_numpy(unsolved)], masks[torch.from_numpy(unsolved)]
        points, labels = corrected(points, labels, masks[:, 0].cpu().numpy(), truth[asked])
        answer, masks = encoded.ask(points, labels, mask=low)
        low = answer.logits[:, :1]
        for k, iou in zip(asked, iou_of(masks, truth[asked])[:, 0], strict=True):
            curves[k].append(float(iou))
    for region, curve in enumerate(curves):
        reached = [number for number, iou in enumerate(curve, start=1) if iou >= GOOD_IOU]
        yield RegionScore(
            source=source,
            area=int(truth[region].sum()),
            clicks=tuple(curve[: max(CLICKS)]),
            best=float(best[region]),
            oracle=float(oracle[region]),
            box=float(box[region]),
            noc85=(reached[0] if reached else MOST_CLICKS) if rounds == MOST_CLICKS else None,
        )


def corrected(
    points: np.ndarray, labels: np.ndarray, masks: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add one click a region at its largest error; none (label -1) where nothing is wrong."""
    xy = np.zeros((len(truth), 1, 2), np.float32)
    label = np.full((len(truth), 1), -1, np.int64)
    for k in range(len(truth)):
        click = corrective_click(truth[k], masks[k])
        if click is not None:
            xy[k, 0], label[k, 0] = click
    return np.concatenate([points, xy], 1), np.concatenate([labels, label], 1)


def score_photo(model: LiteModel, photo: Photo, size: int, device: torch.device, rounds: int) -> Iterator[RegionScore]:
    """Score every region of every segmentation of a photograph."""
    encoded = EncodedPhoto(model, photo.image, size, device)
    for mask in photo.masks:
        values, _ = region_values(mask, min(SMALLEST_PX), photo.zero_is_region)
        for start in range(0, len(values), TOGETHER):
            truth = np.stack([mask == value for value in values[start : start + TOGETHER]])
            yield from score_regions(encoded, truth, photo.source, rounds)


def table(scores: Sequence[RegionScore]) -> list[dict[str, object]]:
    """One row a source and smallest area: means over regions."""
    rows: list[dict[str, object]] = []
    for source in sorted({score.source for score in scores}):
        for smallest in SMALLEST_PX:
            part = [score for score in scores if score.source == source and score.area >= smallest]
            if not part:
                continue
            asked = [score.noc85 for score in part if score.noc85 is not None]
            rows.append(
                {"source": source, "smallest_px": smallest, "regions": len(part)}
                | {f"miou_{n}": round(fmean(score.clicks[n - 1] for score in part), 4) for n in CLICKS}
                | {
                    "miou_1_best_predicted": round(fmean(score.best for score in part), 4),
                    "miou_1_oracle": round(fmean(score.oracle for score in part), 4),
                    "miou_box": round(fmean(score.box for score in part), 4),
                    "noc85": round(fmean(asked), 2) if asked else None,
                }
            )
    return rows


@torch.inference_mode()
def latency(model: LiteModel, size: int, device: torch.device, repeats: int = 30) -> dict[str, float]:
    """Median milliseconds to encode one image, and to decode one click on it."""
    image = torch.zeros(1, 3, size, size, device=device)
    prompts = PromptBatch(
        torch.zeros(1, dtype=torch.long, device=device),
        torch.full((1, 1, 2), size / 2, device=device),
        torch.ones(1, 1, dtype=torch.long, device=device),
    )

    def now() -> float:
        wait_for(device)
        return time.perf_counter()

    times: dict[str, list[float]] = {"encode_ms": [], "decode_ms": []}
    for _ in range(repeats):
        begin = now()
        embedding = model.backbone.encode(model.backbone.embed(image))
        middle = now()
        model.decoder.decode(embedding, prompts)
        times["encode_ms"].append(1000 * (middle - begin))
        times["decode_ms"].append(1000 * (now() - middle))
    return {name: round(median(values), 2) for name, values in times.items()}


def precision_context(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Autocast to bfloat16, or not."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@torch.inference_mode()
def score(model: LiteModel, photos: Sequence[Photo], options: argparse.Namespace) -> list[RegionScore]:
    """Score photographs one by one; NoC goes on to 20 clicks for the sources it is asked for, None is all."""
    device = pick_device(options.device)
    scores: list[RegionScore] = []
    for number, photo in enumerate(photos, start=1):
        rounds = MOST_CLICKS if options.noc is None or photo.source in options.noc else max(CLICKS)
        with precision_context(device, options.precision):
            scores += score_photo(model, photo, options.image_size, device, rounds)
        if number % 20 == 0:
            print(f"{number} of {len(photos)} photographs, {len(scores)} regions", flush=True)
    return scores


def chosen(photos: Sequence[Photo], options: argparse.Namespace) -> list[Photo]:
    """Return the photographs that are asked for.

    Raises:
        ValueError: none is of a source that is named.
    """
    known = sorted({photo.source for photo in photos})
    for option in ("sources", "noc"):
        given = getattr(options, option) or ()
        unknown = [source for source in given if source not in known]
        if unknown:
            raise ValueError(f"--{option} names {', '.join(unknown)}; split {options.split!r} has {', '.join(known)}")
    wanted = options.sources or known
    return [photo for photo in photos if photo.source in wanted][:: options.every]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m simmat_plugin_lite.score", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the rgb-regions folder")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--sources", nargs="*", default=None, help="score only these")
    parser.add_argument("--every", type=whole_number, default=1, help="score every n-th photograph, for a look")
    parser.add_argument("--noc", nargs="*", default=None, help="sources to count clicks up to 20 for; by default all")
    parser.add_argument("--weights", type=Path, default=None, help="another weight file than the packaged one")
    parser.add_argument("--image-size", type=int, default=LITE.image_size)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--out", type=Path, default=None, help="json to write")
    return parser


def main() -> None:
    """Run from the command line."""
    options = arguments().parse_args()
    if options.out is not None:
        check_writable(options.out.parent)
    weights = options.weights or (LITE.weights.path if LITE.weights else None)
    if weights is None:
        raise ValueError("no packaged weights and no --weights FILE; give one (see simmat_plugin_lite.freeze)")
    model = build_foundation(LITE, image_size=options.image_size, weights=weights, seed=0)
    device = pick_device(options.device)
    model = model.to(device)  # type: ignore[attr-defined]
    photos = chosen(read_photos(options.data, options.split), options)
    started = time.time()
    rows = table(score(model, photos, options))
    with precision_context(device, options.precision):
        speed = latency(model, options.image_size, device)
    result = {
        "split": options.split,
        "every": options.every,
        "rows": rows,
        "latency": speed,
        "minutes": round((time.time() - started) / 60, 1),
    }
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print(f"latency {speed}, {result['minutes']} minutes")
    if options.out is not None:
        atomic_write_json(options.out, result)


if __name__ == "__main__":
    run_command(main)

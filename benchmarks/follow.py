"""How well objects are followed from the masks of one frame, beside simpler ways; and what it costs.

    python benchmarks/follow.py score DIR [--on ct-spleen ...] [--frames 30] [--objects 6] [--bundle RUN] [--json FILE]
    python benchmarks/follow.py speed [--json FILE]

Both take [--foundation lite] [--image-size 256]. `score` needs OpenCV (pip install opencv-python-headless). DIR has
a folder for each sequence: index.json, frames/ and masks/, or NIfTI volumes and mask.nii.gz. Or it is a data set of
`simmat data simulate --frames`, and --modality is its sensor. Objects are given in the first frame, of a stack in the
middle slice, and looked for in all others by: `simmat follow`; optical flow (DIS), which moves the masks; a box around
each mask as the prompt in the next frame; and of a stack that with a stop where masks of two slices have an IoU below
0.5, as in micro-sam. J is the mean IoU over frames and objects that are in them, and at the end over sequences; Dice is
of whole objects, without the given slice. Other sequences of --json FILE stay as they are.

`speed`: seconds for a thermal frame of 512 pixels with 1 and 3 objects, on all threads; the machine must be idle.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from measuring import Seconds, parser_of, report, seconds_of, time_lines
from simmat_plugin_sequences.frame_encoder import open_frames
from simmat_plugin_sequences.given_masks import iou
from untuned import add_model_options

import simmat
from simmat.data.instances import read_mask, tight_box
from simmat.io.files import atomic_write_json
from simmat.plugins.loader import installed
from simmat.predictor import Predictor
from simmat.sensors.builtin import band_channels
from simmat.types import BoolArray, Prompt, SensorImage

Masks = dict[int, BoolArray]
Step = Callable[[int, int, Masks], Masks]
SENSORS = {"depth-person": "depth", "rgb-blackswan": "rgb", "mri-tumour": "raster"}
"""Sequence -> sensor; `gray` for others."""
MIN_PIXELS = 30
"""Of an object in the frame in which it is given; smaller ones are left out."""
STOP = 0.5
"""IoU of two slices below which an object ends."""


def read_sequence(
    folder: Path, sensor: str
) -> tuple[Sequence[Any], list[npt.NDArray[np.int64]], bool]:
    """Return the frames, their labels (H, W), and whether they are slices of a stack."""
    if not (folder / "index.json").exists():
        frames = simmat.FrameSequence(folder, sensor)
        masks = folder.parents[1] / "masks" / folder.name
        return (
            frames,
            [read_mask(masks / f"{name}.png") for name in frames.names],
            False,
        )
    about = json.loads((folder / "index.json").read_text())
    if about["kind"] != "volume":
        frames = simmat.FrameSequence(folder / "frames", sensor)
        return frames, [read_mask(folder / file) for file in about["masks"]], False
    planes = [simmat.FrameSequence(folder / file, "gray") for file in about["frames"]]
    labels = [
        read_mask(folder / "mask.nii.gz" / "z" / str(index))
        for index in range(len(planes[0]))
    ]
    if len(planes) == 1:
        return planes[0], labels, True
    stacked = [
        np.concatenate([image.data for image in of_slice])
        for of_slice in zip(*planes, strict=True)
    ]
    frames = [
        SensorImage.from_planes(one, band_channels(len(planes))) for one in stacked
    ]
    # the tumour as a whole
    return frames, [(one > 0).astype(np.int64) for one in labels], True


def chained(step: Step, given: Masks, start: int, count: int) -> dict[int, Masks]:
    """Return the masks of all frames, each made of those of the frame before, forward and backward."""
    found = {start: given}
    for indices in (range(start + 1, count), range(start - 1, -1, -1)):
        for index in indices:
            before = index - 1 if index > start else index + 1
            found[index] = step(before, index, found[before])
    return found


def by_flow(images: Sequence[SensorImage]) -> Step:
    """Move masks by the optical flow."""
    import cv2

    greys = []
    for image in images:
        plane = np.where(image.valid, image.data, np.nan).mean(0)
        low, high = np.nanpercentile(plane, (1, 99))
        scaled = (np.nan_to_num(plane, nan=low) - low) / max(high - low, 1e-6) * 255
        greys.append(scaled.clip(0, 255).astype(np.uint8))
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    y, x = np.mgrid[: greys[0].shape[0], : greys[0].shape[1]].astype(np.float32)

    def step(before: int, index: int, masks: Masks) -> Masks:
        flow = dis.calc(greys[index], greys[before], None)
        at = x + flow[..., 0], y + flow[..., 1]
        moved = {
            one: cv2.remap(mask.astype(np.float32), *at, cv2.INTER_LINEAR)
            for one, mask in masks.items()
        }
        return {one: soft > 0.5 for one, soft in moved.items()}

    return step


def by_box(predictor: Predictor, images: Sequence[SensorImage], tile: int) -> Step:
    """Ask in each frame with the boxes of the masks in the one before."""

    def step(before: int, index: int, masks: Masks) -> Masks:
        image = predictor.open_reader(images[index], tile=tile)
        asked = [one for one, mask in masks.items() if mask.any()]
        none = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
        answers = image.predict_prompts(
            [Prompt(*none, tight_box(masks[one])) for one in asked]
        )
        found = {one: np.zeros_like(mask) for one, mask in masks.items()}
        for one, answer in zip(asked, answers, strict=True):
            if (whole := answer.found_object((0, 0))) is not None:
                found[one] = whole.instance.mask(image.reader.size_hw)
        return found

    return step


def until_change(found: dict[int, Masks]) -> Step:
    """Take masks that were found, of each object as long as they have an IoU of `STOP` with the slice before."""

    def step(before: int, index: int, masks: Masks) -> Masks:
        new = found[index]
        same = {
            one: mask.any() and iou(new[one], mask) >= STOP
            for one, mask in masks.items()
        }
        return {
            one: mask if same[one] else np.zeros_like(mask) for one, mask in new.items()
        }

    return step


def score(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a sequence."""
    sensor = given.modality or SENSORS.get(folder.name, "gray")
    frames, labels, stack = read_sequence(folder, sensor)
    start = len(frames) // 2 if stack else 0
    first = max(start - given.frames // 2, 0) if stack else 0
    frames, labels, start = (
        frames[first : first + given.frames],
        labels[first : first + given.frames],
        start - first,
    )
    ids, counts = np.unique(labels[start], return_counts=True)
    ids = ids[(ids > 0) & (counts >= MIN_PIXELS)][: given.objects].tolist()
    masks = {one: labels[start] == one for one in ids}
    predictor = (
        simmat.load(given.bundle, device="cpu")
        if given.bundle
        else untuned(given, sensor)
    )
    images = [predictor.image_loader.load(frame, ()) for frame in frames]
    began = time.process_time()
    found = {
        "simmat": {
            one.index: one.masks for one in predictor.follow(images, {start: masks})
        }
    }
    cpu_s = (time.process_time() - began) / len(images)
    smallest = min(int(mask.sum()) for mask in masks.values())
    tile = max(
        open_frames(predictor, images, start, smallest, None)
        .grid.windows[0]
        .pixels.size_hw
    )
    for way, step in (
        ("flow", by_flow(images)),
        ("box", by_box(predictor, images, tile)),
    ):
        found[way] = chained(step, masks, start, len(images))
    if stack:
        found["box, stop"] = chained(
            until_change(found["box"]), masks, start, len(images)
        )
    others = [index for index in range(len(images)) if index != start]
    row: dict[str, Any] = {
        "sequence": folder.name,
        "sensor": sensor,
        "foundation": given.bundle or given.foundation,
    }
    row |= {
        "image_size": predictor.pipeline.size,
        "frames": len(images),
        "objects": len(ids),
    }
    row |= {"cpu_s_a_frame": round(cpu_s, 3), "J": {}} | ({"Dice": {}} if stack else {})
    for way, by_frame in found.items():
        pairs = {
            one: [(by_frame[index][one], labels[index] == one) for index in others]
            for one in ids
        }
        ious = [
            iou(mask, true)
            for of_one in pairs.values()
            for mask, true in of_one
            if true.any()
        ]
        row["J"][way] = round(float(np.mean(ious)), 3)
        if stack:
            # (slices, 2, H, W)
            volumes = [np.array(of_one) for of_one in pairs.values()]
            dice = [2 * one.all(1).sum() / one.sum() for one in volumes]
            row["Dice"][way] = round(float(np.mean(dice)), 3)
    return row


def scores(given: argparse.Namespace) -> None:
    """Measure all sequences; after each, print it and write the file."""
    torch.set_num_threads(1)
    known = (
        json.loads(given.json.read_text()) if given.json and given.json.exists() else []
    )
    rows = {one["sequence"]: one for one in known}
    folders = [
        file.parent for file in given.folder.glob("*/index.json")
    ] or given.folder.glob("frames/*")
    for folder in sorted(folders):
        if given.on is None or folder.name in given.on:
            rows[folder.name] = score(folder, given)
            print(json.dumps(rows[folder.name]), flush=True)
            if given.json:
                atomic_write_json(given.json, [rows[name] for name in sorted(rows)])
    print(
        {
            way: round(fmean(row["J"][way] for row in rows.values()), 3)
            for way in ("simmat", "flow", "box")
        }
    )


def simulated(
    size_hw: tuple[int, int],
) -> Iterator[tuple[SensorImage, npt.NDArray[np.int32]]]:
    """Yield thermal images of a scene in which objects move, with their ids (H, W)."""
    from simmat_plugin_scenes.generate import generate_frames

    adapter, rng = installed().modality("thermal"), np.random.default_rng(1)
    return (
        (adapter.simulate(scene, rng), scene.instance)
        for scene in generate_frames(rng, size_hw)
    )


def untuned(given: argparse.Namespace, modality: str) -> Predictor:
    """Return an untuned model."""
    return simmat.load(
        foundation=given.foundation,
        modality=modality,
        image_size=given.image_size,
        device="cpu",
    )


def speed(given: argparse.Namespace) -> None:
    """Time frames in which the largest objects move by two pixels."""
    predictor, count = untuned(given, "thermal"), given.frames
    image, labels = next(simulated((512, 512)))
    frames = [
        SensorImage(
            *(np.roll(part, 2 * step, -1) for part in (image.data, image.valid)),
            image.channels,
            image.origin,
        )
        for step in range(count)
    ]
    largest = np.argsort(np.bincount(labels.ravel())[1:])[::-1] + 1
    lines, threads = [], torch.get_num_threads()
    for objects, aim in ((1, 0.12), (3, 0.2)):
        follower = predictor.follow(
            frames, {0: {int(one): labels == one for one in largest[:objects]}}
        )
        times = [seconds_of(lambda: next(follower)) for _ in frames]  # noqa: B023 - called at once
        path = f"follow a 512 px frame, objects: {objects}"
        lines += time_lines(
            path, times[2:], "aim", [Seconds(aim, aim)], threads=threads
        )
    report(lines, given.json)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    ways = {"score": scores, "speed": speed}
    parser.add_argument("what", choices=list(ways))
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    add_model_options(parser)
    parser.add_argument("--bundle", help="a tuned model in place of --foundation")
    parser.add_argument("--modality", help="of a data set")
    parser.add_argument(
        "--frames", type=int, default=30, help="of each sequence, at most"
    )
    parser.add_argument(
        "--objects", type=int, default=6, help="of each sequence, at most"
    )
    given = parser.parse_args()
    if given.what == "score" and given.folder is None:
        parser.error("score needs DIR, the folder of the sequences")
    ways[given.what](given)


if __name__ == "__main__":
    main()

"""Time what follows the network in numpy, as `simmat_runtime` does it, beside torch, as the core does it.

    python benchmarks/after_network.py BUNDLE IMAGE [IMAGE ...] [--enlarged 1] [--rounds 5]

Of the same answers of the network about the same images, in turn, on one thread: the search for every object, and one
click. The first lines compare these alone; the last ones with encoding and decoding before them. `--enlarged N` repeats
each pixel N x N times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measuring import in_turn, parser_of, report, time_lines
from simmat_runtime import everything, letterbox
from simmat_runtime.manifest import Dense

import simmat
from simmat.data.pipeline import regions_from_logits
from simmat.predictor import EverythingSettings, find_objects
from simmat.predictor.encoded import EncodedImage
from simmat.types import SensorImage, Window


class TorchAnswers:
    """What the network says of an image, asked once for the same clicks."""

    def __init__(self, image: EncodedImage) -> None:
        self.prepared = image.prepared
        self.dense_answer = image.dense_answer
        self.dense_spec = image.dense_spec
        self._image = image
        self._known: dict[bytes, Any] = {}

    def decode_clicks(self, points: np.ndarray) -> Any:
        """Return the answer to (K, 2) xy of the network's input."""
        key = np.ascontiguousarray(points, np.float32).tobytes()
        if key not in self._known:
            self._known[key] = self._image.decode_clicks(points)
        return self._known[key]


@dataclass
class NumpyAnswers:
    """The same, in the form that the runtime takes."""

    answers: TorchAnswers
    letterbox: letterbox.Letterbox
    network: Any

    @property
    def dense(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Class logits (K, h, w) and distance logits (h, w)."""
        dense = self.answers.dense_answer
        if dense is None:
            return None
        return dense.class_logits[0].numpy(), dense.distance[0, 0].numpy()

    def decode(
        self, coords: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits and predicted IoUs of one click each, (K, 1, 2) xy."""
        answer = self.answers.decode_clicks(coords[:, 0])
        return answer.logits.numpy(), answer.iou.numpy()

    def restore(self, logits: np.ndarray) -> np.ndarray:
        """Resize to the input, cut the content out, and resize it to the image."""
        size = self.letterbox.size
        height, width = self.letterbox.scaled_hw
        whole = letterbox.resized(logits, (size, size))
        return letterbox.resized(whole[:, :height, :width], self.letterbox.original_hw)


def numpy_answers(answers: TorchAnswers) -> NumpyAnswers:
    """Return the answers as the runtime takes them; no score is calibrated."""
    spec = answers.dense_spec
    dense = spec and Dense(spec.background, spec.classes)
    box = answers.prepared.letterbox
    manifest = SimpleNamespace(dense=dense, calibrated=lambda kind, score: score)
    return NumpyAnswers(
        answers,
        letterbox.Letterbox(box.original_hw, box.size, box.aspect),
        SimpleNamespace(manifest=manifest),
    )


def enlarged(image: SensorImage, times: int) -> SensorImage:
    """Return an image with each pixel repeated."""
    data = image.data.repeat(times, 1).repeat(times, 2)
    return SensorImage.from_planes(data, image.channels, origin=image.origin)


def main() -> None:
    """Measure and print the lines."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--enlarged", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    predictor = simmat.load(arguments.bundle, device="cpu")
    settings = EverythingSettings()
    numpy_settings = everything.Settings()
    images = []
    for path in arguments.images:
        reader = predictor.image_loader.reader(path, (), 0)
        whole = reader.read(Window(0, 0, *reader.size_hw))
        images.append(enlarged(whole, arguments.enlarged))
    encoded = [predictor.encode(image, image) for image in images]
    answers = [TorchAnswers(one) for one in encoded]
    as_numpy = [numpy_answers(one) for one in answers]
    centres = [
        np.asarray([[side / 2 for side in one.letterbox.scaled_hw[::-1]]], np.float32)
        for one in as_numpy
    ]
    counts = [
        (
            len(find_objects(one, settings)),
            len(everything.find_objects(other, numpy_settings)),
        )
        for one, other in zip(answers, as_numpy, strict=True)
    ]
    print(f"objects (torch, numpy) of each image: {counts}")

    def torch_click() -> None:
        for one, centre in zip(answers, centres, strict=True):
            logits = one.decode_clicks(centre).logits[:, :1]
            regions_from_logits(logits, one.prepared.letterbox)

    def numpy_click() -> None:
        for one, centre in zip(as_numpy, centres, strict=True):
            logits, _ = one.decode(centre[:, None], np.ones((1, 1), np.int64))
            (one.restore(logits[0, :1])[0] > 0).any(0)

    def network(objects: bool) -> None:
        for image in images:
            one = predictor.encode(image, image)
            if objects:
                find_objects(one, settings)
            else:
                torch_one = TorchAnswers(one)
                logits = torch_one.decode_clicks(centres[0]).logits[:, :1]
                regions_from_logits(logits, one.prepared.letterbox)

    ways: dict[str, Callable[[], object]] = {
        "torch": lambda: [find_objects(one, settings) for one in answers],
        "numpy": lambda: [
            everything.find_objects(one, numpy_settings) for one in as_numpy
        ],
        "torch click": torch_click,
        "numpy click": numpy_click,
        "whole": lambda: network(True),
        "whole click": lambda: network(False),
    }
    times = in_turn(ways, arguments.rounds)
    lines = []
    for what, kind in (("every object", ""), ("one click", " click")):
        pair = times[f"numpy{kind}"], times[f"torch{kind}"]
        lines += time_lines(
            f"{what}, after the network: numpy", pair[0], "torch", pair[1]
        )
        whole = times[f"whole{kind}"]
        swapped = [
            type(all_of)(*(a - b + c for a, b, c in zip(all_of, old, new, strict=True)))
            for all_of, old, new in zip(whole, pair[1], pair[0], strict=True)
        ]
        lines += time_lines(f"{what}, with the network: numpy", swapped, "torch", whole)
    report(lines, arguments.json)


if __name__ == "__main__":
    main()

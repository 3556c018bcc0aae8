"""Write a bundle as ONNX files with a manifest, and check them against the model in torch."""

from __future__ import annotations

import copy
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from simmat_runtime import manifest as names
from torch import Tensor

import simmat
from simmat.bundle import FILE_NAME, Bundle, write_sensors
from simmat.calibration import Calibration
from simmat.errors import ConfigError, SimMATError
from simmat.foundation import ImageEmbedding, PromptBatch
from simmat.io.files import atomic_folder, atomic_write_bytes, atomic_write_json
from simmat.io.weights import sha256_of
from simmat.model import SimMAT
from simmat.nn.lora import merge_lora
from simmat.predictor import Predictor
from simmat.sensors.adapter import channel_spans
from simmat.types import Channel
from simmat_plugin_export.graphs import (
    Decode,
    DenseHeadGraph,
    EncoderGraph,
    Masks,
    Prepare,
)
from simmat_plugin_export.joining import KINDS, Kinds, Variants, chained, value
from simmat_plugin_export.measuring import (
    AccuracyLoss,
    Split,
    difference_to_torch,
    measured_loss,
    open_split,
)
from simmat_plugin_export.precision import (
    Convert,
    Precision,
    as_feeds,
    halved,
    quantized_dynamic,
    quantized_static,
)
from simmat_plugin_export.tracing import MAX_FILE_BYTES, Dynamic, trace

FORMAT = "onnx"
"""Name of the model format that the plugin brings, in the spec of what is exported."""
TOLERANCE = 1e-3
"""Largest difference of logits and scores between onnxruntime and torch, in single precision."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        files: name -> size in bytes.
        difference: largest difference of logits and scores from torch, on an image of noise.
        loss: the loss on real data; None if it was not measured.
    """

    files: Mapping[str, int]
    difference: float
    loss: AccuracyLoss | None


def export(
    bundle: Bundle,
    out: Path,
    *,
    precision: Precision = "fp32",
    data: Path | None = None,
    kinds: Kinds = KINDS,
    progress: Progress = lambda step: None,
) -> Exported:
    """Write a bundle as ONNX files.

    Args:
        bundle: the bundle, on the CPU.
        out: the folder to write; an exported model there is replaced.
        precision: precision of the network of the encoder.
        data: a data set whose val split is used to calibrate "int8-static" and to measure the loss; None measures none.
        kinds: kinds of prompts that the decoder takes, including clicks.
        progress: called with the name of each step.

    Raises:
        ConfigError: the sensor or the model cannot be exported, or `out` contains something else.
        OutputError: the folder cannot be written.
    """
    if out.exists() and (
        not out.is_dir() or (any(out.iterdir()) and not (out / names.NAME).is_file())
    ):
        raise ConfigError(
            f"{out} exists and is not an exported model; give another --out, or remove it"
        )
    if precision == "int8-static" and data is None:
        raise ConfigError(
            "--quantize int8-static needs images to calibrate with: --data DIR, a data set of the sensor"
        )
    if bundle.spec.exported is not None:
        raise ConfigError(
            f"{bundle.path} was exported already; give the bundle or the run from which it was made"
        )
    check_transform(bundle)
    split = None if data is None else open_split(bundle, data)
    model = copy.deepcopy(bundle.model).eval().requires_grad_(False)
    merge_lora(model)
    with atomic_folder(out) as folder:
        parts = _Parts(bundle, model, kinds, _conversion(precision, bundle, split))
        for name, make in parts.makers().items():
            progress(f"tracing {name}")
            with _refused(bundle, name):
                _write(folder / name, make())
        spec = bundle.spec.model_copy(update={"exported": FORMAT})
        write_sensors(folder / FILE_NAME, {"": (spec, {})})
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        listed = {
            name: {"sha256": sha256_of(folder / name), "bytes": size}
            for name, size in sizes.items()
        }
        document = parts.manifest(listed) | {"precision": precision}
        atomic_write_json(folder / names.NAME, names.with_checksum(document))
        progress("comparing with torch")
        with _refused(bundle, "what was traced"):
            difference = difference_to_torch(bundle, folder, kinds)
        if not difference <= (TOLERANCE if precision == "fp32" else math.inf):
            raise ConfigError(
                f"{bundle.path}: the exported model differs from torch by {difference:.3g} (allowed {TOLERANCE:g}), so "
                f"{bundle.spec.foundation!r} with {bundle.spec.mat!r} and {bundle.spec.tune!r} cannot be exported; "
                "please report it"
            )
        loss = None
        if split is not None:
            progress("measuring the loss")
            loss = measured_loss(bundle, folder, *split)
            atomic_write_json(
                folder / names.NAME,
                names.with_checksum({**document, "measured": asdict(loss)}),
            )
    return Exported(sizes, difference, loss)


def _conversion(precision: Precision, bundle: Bundle, split: Split | None) -> Convert:
    """Return the function that converts the network of the encoder to a precision."""
    if precision == "fp16":
        return halved
    if precision == "int8-dynamic":
        return quantized_dynamic
    if precision == "int8-static":
        assert split is not None  # `export` has refused it
        dataset, samples = split
        return lambda model: quantized_static(
            model,
            as_feeds(bundle.pipeline(dataset.image(sample))[:2] for sample in samples),
        )
    return lambda model: model


def check_transform(bundle: Bundle) -> None:
    """Check that the transform of the sensor can be exported.

    Raises:
        ConfigError: the sensor does not implement `transform_arrays`.
    """
    channels = bundle.spec.sensor_channels
    one = torch.ones(len(channels), 1, 1)
    try:
        bundle.adapter.transform_arrays(one, one > 0, channels, torch)
    except NotImplementedError as error:
        raise ConfigError(
            f"modality {bundle.spec.modality!r} cannot be exported: {error}; define its computation in "
            "ModalityAdapter.transform_arrays"
        ) from error


class _Parts:
    """The graphs of a bundle.

    Attributes:
        levels: names of the levels of the embedding.
    """

    def __init__(
        self, bundle: Bundle, model: SimMAT, kinds: Kinds, convert: Convert
    ) -> None:
        self._bundle, self._spec, self._model = bundle, bundle.spec, model
        self._kinds, self._convert = kinds, convert
        self._embeddings = [self._embedding(count) for count in (2, 3)]
        self.levels = [
            f"level_{index}" for index in range(len(self._embeddings[0].levels))
        ]
        self._answer = model.decode(
            self._embeddings[0], self._prompts((True, False, False), 2, 3, 1)
        )

    def makers(self) -> dict[str, Callable[[], onnx.ModelProto]]:
        """Return file name -> function that makes the file."""
        dense = {names.DENSE: self._dense} if self._model.dense is not None else {}
        return {
            names.ENCODER: self._encoder,
            names.DECODER: self._decoder,
            names.MASKS: self._masks,
            **dense,
        }

    @torch.no_grad()
    def _embedding(self, images: int) -> ImageEmbedding:
        return self._model.encode(*self._inputs(images))

    def _inputs(self, images: int) -> tuple[Tensor, Tensor]:
        size = self._spec.image_size
        shape = (images, len(self._spec.channels), size, size)
        return torch.randn(
            shape, generator=torch.Generator().manual_seed(0)
        ), torch.ones(images, size, size, dtype=torch.bool)

    def _prompts(
        self, kind: tuple[bool, bool, bool], images: int, count: int, points: int
    ) -> PromptBatch:
        has_points, has_box, has_mask = kind
        generator = torch.Generator().manual_seed(count)
        size = self._spec.image_size
        points *= has_points
        corner = torch.rand(count, 2, generator=generator) * size / 2
        height, width = self._answer.logits.shape[-2:] if has_mask else (1, 1)
        return PromptBatch(
            image_index=torch.arange(count) % images,
            point_coords=torch.rand(count, points, 2, generator=generator) * size,
            point_labels=torch.arange(count * points).reshape(count, points) % 2,
            boxes=torch.cat([corner, corner + size / 3], 1) if has_box else None,
            mask_input=torch.randn(count, 1, height, width, generator=generator)
            if has_mask
            else None,
        )

    def _encoder(self) -> onnx.ModelProto:
        spec = self._spec
        prepare = Prepare(
            self._bundle.adapter,
            spec.sensor_channels,
            spec.channels,
            spec.image_size,
            spec.aspect,
        )
        count = len(spec.sensor_channels)
        images = [
            torch.rand(shape) for shape in ((2, count, 37, 41), (3, count, 43, 31))
        ]
        first = trace(
            prepare,
            [images[0]],
            [images[1]],
            names=["image"],
            outputs=["planes", "content"],
            dynamic={
                "image": {0: "images", 2: "height", 3: "width"},
                "planes": {0: "images"},
                "content": {0: "images"},
            },
        )
        second = trace(
            EncoderGraph(self._model),
            self._inputs(2),
            self._inputs(3),
            names=["planes", "content"],
            outputs=self.levels,
            dynamic={
                name: {0: "images"} for name in ("planes", "content", *self.levels)
            },
        )
        return chained(first, self._convert(second), ["planes", "content"])

    def _decoder(self) -> onnx.ModelProto:
        variants = Variants()
        for kind in self._kinds:
            one, other = (
                self._prompts(kind, images, count, points)
                for images, count, points in ((2, 5, 3), (3, 4, 2))
            )
            given = [
                "image_index",
                *(["point_coords", "point_labels"] if kind[0] else []),
            ]
            given += [
                *(["boxes"] if kind[1] else []),
                *(["mask_input"] if kind[2] else []),
            ]
            model = trace(
                Decode(
                    self._model,
                    self._strides,
                    points=kind[0],
                    boxes=kind[1],
                    masks=kind[2],
                ),
                [*(getattr(one, name) for name in given), *self._embeddings[0].levels],
                [
                    *(getattr(other, name) for name in given),
                    *self._embeddings[1].levels,
                ],
                names=[*given, *self.levels],
                outputs=["logits", "iou"],
                dynamic=self._dynamic([*given, *self.levels, "logits", "iou"]),
            )
            variants.add(kind, model, [*given, *self.levels])
        masks, height, width = self._answer.logits.shape[1:]
        inputs = [
            *(
                value(name, ["images", *level.shape[1:]])
                for name, level in zip(
                    self.levels, self._embeddings[0].levels, strict=True
                )
            ),
            value("image_index", ["prompts"], np.int64),
            value("point_coords", ["prompts", "points", 2]),
            value("point_labels", ["prompts", "points"], np.int64),
            value("boxes", ["prompts or 0", 4]),
            value("mask_input", ["prompts or none", 1, height, width]),
        ]
        return variants.joined(
            inputs,
            [
                value("logits", ["prompts", masks, height, width]),
                value("iou", ["prompts", masks]),
            ],
        )

    def _dense(self) -> onnx.ModelProto:
        one, other = self._embeddings
        return trace(
            DenseHeadGraph(self._model, self._strides),
            one.levels,
            other.levels,
            names=self.levels,
            outputs=["classes", "distance"],
            dynamic={
                name: {0: "images"} for name in (*self.levels, "classes", "distance")
            },
        )

    def _masks(self) -> onnx.ModelProto:
        inputs = [
            [torch.rand(count, height, height), torch.tensor(size)]
            for count, height, size in ((2, 8, (19, 23)), (3, 10, (29, 27)))
        ]
        return trace(
            Masks(self._spec.image_size, self._spec.aspect),
            inputs[0],
            inputs[1],
            names=["logits", "original_hw"],
            outputs=["masks"],
            dynamic={
                "logits": {0: "masks", 1: "h", 2: "w"},
                "masks": {0: "masks", 1: "height", 2: "width"},
            },
        )

    @property
    def _strides(self) -> tuple[float, ...]:
        return tuple(self._embeddings[0].strides)

    def _dynamic(self, given: Sequence[str]) -> Dynamic:
        axes = {
            "point_coords": {0: "prompts", 1: "points"},
            "point_labels": {0: "prompts", 1: "points"},
        }
        return {
            name: axes.get(name, {0: "images" if name in self.levels else "prompts"})
            for name in given
        }

    def manifest(self, files: Mapping[str, Any]) -> dict[str, Any]:
        """Return the manifest, as json values."""
        spec, dense = self._spec, self._spec.dense
        temperature = (
            spec.calibration.temperature if spec.calibration else None
        ) or 1.0
        predictor = Predictor.of_bundle(self._bundle)
        largest = predictor.max_untiled_side
        return {
            "format": names.FORMAT,
            "modality": spec.modality,
            "channels": [_described(channel) for channel in spec.sensor_channels],
            "image_size": spec.image_size,
            "aspect": spec.aspect,
            "largest": largest,
            "window": predictor.tile_size((largest + 1, largest + 1)),
            "mask_size": list(self._answer.logits.shape[-2:]),
            "levels": len(self.levels),
            "dense": None
            if dense is None
            else {
                "background": dense.background,
                "classes": list(dense.classes),
                "temperature": temperature,
            },
            "class_names": {
                str(number): name for number, name in predictor.class_names.items()
            },
            "calibration": _described_calibration(spec.calibration),
            **_described_sensors(self._bundle),
            "files": dict(files),
            "model": {
                "foundation": spec.foundation,
                "mat": spec.mat,
                "tune": spec.tune,
                "bundle_sha256": spec.sha256,
            },
            "versions": {
                "simmat": simmat.__version__,
                "torch": torch.__version__,
                "onnx": onnx.__version__,
                "python": platform.python_version(),
            },
        }


def _described_calibration(calibration: Calibration | None) -> dict[str, Any]:
    curves = calibration.curves if calibration is not None else {}
    return {
        kind: {"predicted": list(curve.predicted), "true": list(curve.true)}
        for kind, curve in curves.items()
    }


def _described_sensors(bundle: Bundle) -> dict[str, Any]:
    """Return the sensors whose images the runtime may join; none if there is one."""
    alignments = bundle.spec.card.alignment
    sensors = bundle.adapter.sensors()
    if len(sensors) < 2:
        return {}
    references = {one.reference for one in alignments.values()}
    names_left = iter(bundle.adapter.source_names())
    from_reference: dict[str, Any] = {}
    sizes: dict[str, list[int] | None] = {}
    each = set()
    for sensor in sensors:
        source, *_ = (next(names_left) for _ in sensor.sources)
        sizes[sensor.name] = None
        if source in references:
            from_reference[sensor.name] = np.eye(3)
            stated = [one.reference_size for one in alignments.values()]
            sizes[sensor.name] = next((list(size) for size in stated if size), None)
        elif source in alignments:
            own = alignments[source]
            if own.matrix is None:
                each.add(sensor.name)
                continue
            from_reference[sensor.name] = np.asarray(own.matrix, np.float64)
            sizes[sensor.name] = list(own.size) if own.size else None
    first = from_reference.get(sensors[0].name)
    described = []
    for sensor, span in channel_spans(bundle.adapter, bundle.spec.sensor_channels):
        channels = [bundle.spec.sensor_channels[index] for index in span]
        matrix: list[list[float]] | str | None = None
        own_place = from_reference.get(sensor.name)
        if sensor is not sensors[0] and first is not None and own_place is not None:
            matrix = (own_place @ np.linalg.inv(first)).tolist()
        elif sensor is not sensors[0] and each & {sensor.name, sensors[0].name}:
            matrix = "each"
        one = {
            "name": sensor.name,
            "averaged": list(sensor.may_average(channels)),
            "matrix": matrix,
            "size": sizes[sensor.name],
        }
        described.append(one)
    return {"sensors": described}


def _described(channel: Channel) -> dict[str, Any]:
    bounds = channel.valid_range
    return {
        "name": channel.name,
        "quantity": channel.quantity,
        "unit": channel.unit,
        "wavelength_um": channel.wavelength_um,
        "valid_range": bounds
        and [bound if math.isfinite(bound) else None for bound in bounds],
    }


@contextmanager
def _refused(bundle: Bundle, what: str) -> Iterator[None]:
    """Turn what torch.onnx or onnxruntime cannot do into an error that names the model's parts."""
    try:
        yield
    except SimMATError:
        raise
    except Exception as error:  # onnxruntime's own errors share no base
        spec = bundle.spec
        first = (
            str(error).strip().splitlines()[0]
            if str(error).strip()
            else type(error).__name__
        )
        raise ConfigError(
            f"{bundle.path}: {what} of foundation model {spec.foundation!r} with transfer layer {spec.mat!r} and tuner "
            f"{spec.tune!r} cannot be exported ({first})"
        ) from error


def _write(file: Path, model: onnx.ModelProto) -> None:
    if model.ByteSize() < MAX_FILE_BYTES:
        atomic_write_bytes(file, model.SerializeToString())
    else:
        onnx.save_model(
            model,
            file,
            save_as_external_data=True,
            location=f"{file.name}.data",
            convert_attribute=False,
        )

"""The predictor of a network and its sensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simmat.bundle import Bundle, check_sensor_channels
from simmat.data.card import DataCard
from simmat.data.pipeline import Pipeline, PreparedImage, prompt_batch
from simmat.errors import BundleError, ConfigError, DataError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseHead
from simmat.nn.resize import restore_logits
from simmat.predictor.checks import (
    as_numbers,
    check_inside,
    check_mask_size,
    check_units,
    range_of,
    unlike_training,
)
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.sensors.channel_selection import MissingChannels, pick_channels
from simmat.sensors.normalize import describe
from simmat.types import BoolArray, FloatArray, Prompt, SensorImage

if TYPE_CHECKING:
    from simmat.everything import ClassMap, EverythingSettings, FoundObject

Choice = Literal["single", "best"]
Files = Mapping[str, Path | str]

_PROMPTS_AT_ONCE = 16


@dataclass(frozen=True)
class Prediction:
    """A mask of one image.

    Attributes:
        mask: (H, W) bool at the original size.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask.
        low_res: (h, w) float32, the same logits at the decoder's own size; `predict(mask=)` takes them.
        image: what was loaded.
        doubt: how the values differ from those of training, so that the mask may be meaningless; "" if they do not.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res: FloatArray
    image: SensorImage
    doubt: str = ""

    def __repr__(self) -> str:
        """Give the size of the mask and its score, not half a million numbers."""
        return f"<Prediction: {int(self.mask.sum())} of {self.mask.size} pixels, score {self.score:.3f}>"


class EncodedImage:
    """The embedding of an image, ready to decode prompts.

    Attributes:
        prepared: the network's input, and the position of the original image in it.
        embedding: of the image.
    """

    @torch.inference_mode()
    def __init__(self, model: SimMAT, prepared: PreparedImage) -> None:
        self.prepared = prepared
        self._model = model
        self._device = next(model.parameters()).device
        planes, content = prepared.planes[None].to(self._device), prepared.content[None].to(self._device)
        self.embedding: ImageEmbedding = model.encode(planes, content)

    @torch.inference_mode()
    def decode(self, prompts: Sequence[Prompt], *, mask_input: Tensor | None = None) -> MaskPrediction:
        """Decode K prompts of one kind: all with as many points, and all with or without box and mask.

        Args:
            prompts: in pixels of the original image.
            mask_input: (K, 1, h, w) logits of earlier masks, in place of the prompts' own.
        """
        batch = prompt_batch(prompts, self.prepared.frame, self._device)
        if mask_input is not None:
            batch = replace(batch, mask_input=mask_input)
        return self._model.decode(self.embedding, batch)

    @torch.inference_mode()
    def decode_clicks(self, points: FloatArray) -> MaskPrediction:
        """Answer K clicks, one each, at (K, 2) xy of the S×S input."""
        count = len(points)
        batch = PromptBatch(
            image_index=torch.zeros(count, dtype=torch.int64, device=self._device),
            point_coords=torch.from_numpy(points[:, None]).to(self._device),
            point_labels=torch.ones(count, 1, dtype=torch.int64, device=self._device),
        )
        return self._model.decode(self.embedding, batch)


class Predictor:
    """A network and its sensor: `set_image` once, then `predict` any number of times.

    Attributes:
        model: the network, in eval mode.
        pipeline: image in physical units -> network input.
        bundle: what it was loaded from, or None.
        channels: the C channels of the sensor's images; empty if only a file can tell.
        dense: what its dense head tells apart; None without one.
        image: the current image in physical units, or None.
    """

    def __init__(
        self, model: SimMAT, pipeline: Pipeline, *, bundle: Bundle | None = None, dense: DenseSpec | None = None
    ) -> None:
        """Make a predictor.

        Args:
            model: the network; it is put into eval mode.
            pipeline: image -> network input.
            bundle: which both come from; its card and channels then apply to files and images.
            dense: what a dense head of the network tells apart; by default as the bundle says.
        """
        self.model = model.eval()
        self.pipeline = pipeline
        self.bundle = bundle
        self.channels = bundle.spec.sensor_channels if bundle else pipeline.adapter.channels
        self.dense = dense or (bundle.spec.dense if bundle else None)
        self.image: SensorImage | None = None
        self._encoded: EncodedImage | None = None

    def __repr__(self) -> str:
        """Name the sensor, what it was loaded from, and the image."""
        loaded = self.bundle.path if self.bundle else "untuned"
        return f"<{type(self).__name__} of {self.adapter.name}: {loaded}, image {self.image!r}>"

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Predictor:
        """Return the predictor of a loaded bundle."""
        return cls(bundle.model, bundle.pipeline, bundle=bundle)

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor."""
        return self.pipeline.adapter

    def set_image(
        self,
        image: Path | str | Files | SensorImage | npt.NDArray[np.generic],
        *,
        missing: Sequence[str | int] = (),
    ) -> SensorImage:
        """Load and encode an image; `predict` then works on it.

        Args:
            image: a file, {source: file} of a sensor with several, a loaded image, or an array (C, H, W), or (H, W) for
                one channel, in the units of `channels` with NaN where nothing was measured. Options such as the unit
                apply to files only; `Dataset.image` returns what `Dataset.from_arrays` wrote in these units.
            missing: channels that the files lack, by name, 0-based index or wavelength.

        Returns:
            The image in physical units.

        Raises:
            TypeError: the files given are not those of the sensor's sources, or `image` is of another type.
            ValueError: an array has another number of planes than the sensor.
            DataError: a file cannot be read, no pixel is valid, or an array is in another unit.
            BundleError: the image has other channels than the bundle was trained on.
            ConfigError: the bundle's transfer layer needs the missing channels.
        """
        self.image, self._encoded = None, None  # after an error there is no image, not the one before
        names = self.missing_channels(missing)
        if isinstance(image, np.ndarray):
            image = self._from_array(image)
        elif isinstance(image, str | Path | Mapping):
            image = self._from_files(image, names)
        elif not isinstance(image, SensorImage):
            raise TypeError(
                f"set_image takes a file, {{source: file}}, a SensorImage or an array, got {type(image).__name__}; "
                "convert it to an array, planes first: (C, H, W), not (H, W, C)"
            )
        self._check_channels(image)
        if not image.valid.any():
            ranges = ", ".join(range_of(channel) for channel in image.channels if channel.valid_range is not None)
            raise DataError(
                f"{image.origin}: no pixel holds a measurement, so there is nothing to segment"
                + (f"; valid are {ranges}" if ranges else "")
            )
        self._encoded = self._encode(image)
        self.image = image
        return image

    def predict(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        mask: FloatArray | None = None,
        *,
        choice: Choice = "single",
    ) -> Prediction:
        """Segment the object that a prompt marks in the current image.

        Args:
            points: (x, y) in pixels of the original image; (0, 0) is the centre of the top-left pixel.
            labels: one for each point, 1 on the object, 0 not on it; None means that all are on it.
            box: (x0, y0, x1, y1) of its outer edges, from 0 to width and height.
            mask: (h, w) logits of an earlier mask, `Prediction.low_res`.
            choice: "single" takes the model's single mask; "best" the alternative with the highest predicted IoU,
                which suits one ambiguous click.

        Raises:
            TypeError: points, labels or box are not numbers.
            ValueError: no image is set, `choice` is unknown, or `mask` is not of the decoder's size.
            DataError: there is no prompt, labels and points do not match, or `mask` does not hold logits.
            ConfigError: a point or the box is outside of the image.
        """
        coords = as_numbers(points, "points", "(x, y) pairs, such as [(320, 240)]", -1, 2)
        marks = np.ones(len(coords)) if labels is None else as_numbers(labels, "labels", "0 or 1 for each point", -1)
        corners = None if box is None else as_numbers(box, "box", "(x0, y0, x1, y1)", -1)
        prompt = Prompt(coords, marks.astype(np.int64), corners, None if mask is None else np.asarray(mask))
        return self.predict_prompts([prompt], choice=choice)[0]

    def predict_prompts(self, prompts: Sequence[Prompt], *, choice: Choice = "single") -> list[Prediction]:
        """Segment the objects that several prompts mark in the current image; those of one kind are decoded together.

        Raises:
            ValueError: no image is set, or `choice` is unknown.
            ConfigError: a point or a box is outside of the image.
            BundleError: the network's output is not finite.
        """
        if choice not in get_args(Choice):
            raise ValueError(f"choice must be one of {', '.join(map(repr, get_args(Choice)))}, got {choice!r}")
        if self._encoded is None or self.image is None:
            raise ValueError("no image is set; call set_image first")
        for prompt in prompts:
            check_inside(prompt, self.image)
        doubt = unlike_training(self._encoded.prepared, self.pipeline.channels) if self.bundle else ""
        found: dict[int, Prediction] = {}
        for places in _of_one_kind(prompts):
            decoded = self._encoded.decode([prompts[place] for place in places])
            check_mask_size(prompts[places[0]].mask_input, decoded)
            for row, place in enumerate(places):
                found[place] = self._prediction(decoded, row, choice, doubt)
        return [found[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def segment_semantic(self) -> ClassMap:
        """Return the class of every pixel of the current image.

        Raises:
            ValueError: there is no image yet, or the network has no dense head.
        """
        from simmat.everything import ClassMap, label_values

        spec, _ = self._dense_head()
        chances = self._chances()
        found = chances.argmax(0)
        values = label_values(spec.background, spec.classes)
        return ClassMap(values[found], np.take_along_axis(chances, found[None], 0)[0])

    @torch.inference_mode()
    def segment_everything(self, settings: EverythingSettings | None = None) -> list[FoundObject]:
        """Find every object of the current image, each with its class where the network knows classes.

        With a dense head the clicks are the peaks of its distance map; without one, a grid.

        Args:
            settings: how objects are found; by default as `EverythingSettings` says.

        Raises:
            ValueError: there is no image yet.
        """
        from simmat import everything

        encoded, frame = self._current(), self._current().prepared.frame
        settings = settings or everything.EverythingSettings()
        dense = self.model.dense
        if dense is None:
            points = everything.grid_points(frame, settings.grid)
        else:
            distance = dense(encoded.embedding).distance[0, 0].sigmoid()  # (h, w)
            stride = frame.size / distance.shape[-1]
            points, _ = everything.distance_peaks(distance, lowest=settings.peak, spread=settings.spread)
            points = (points + 0.5) * stride - 0.5
            inside = (points < np.asarray(frame.scaled_hw[::-1]) - 0.5).all(axis=1)
            points = points[inside][: settings.most]
        answers = everything.answer_clicks(points, encoded.decode_clicks, frame, settings, stable=dense is None)
        kept = everything.suppress(answers.low, answers.scores, settings.overlap)
        spec = self.dense
        chances = self._chances() if spec is not None else None
        originals = frame.points_to_original(answers.points)
        found = []
        for index in kept:
            region, score = answers.regions[index], float(answers.scores[index])
            if spec is not None and chances is not None:
                place, chance = everything.class_of(region, chances, spec.background)
                value = int(everything.label_values(spec.background, spec.classes)[place])
                region, score = replace(region, class_id=value), score * chance
            x, y = originals[index].tolist()
            found.append(everything.FoundObject(region, score, (x, y)))
        return sorted(found, key=lambda one: -one.score)

    def _chances(self) -> FloatArray:
        """Return (K, H, W) class probabilities of the current image."""
        encoded = self._current()
        _, head = self._dense_head()
        logits = restore_logits(head(encoded.embedding).classes, encoded.prepared.frame)[0]
        chances: FloatArray = logits.softmax(0).cpu().numpy()
        return chances

    def _dense_head(self) -> tuple[DenseSpec, DenseHead]:
        spec, head = self.dense, self.model.dense
        if spec is None or head is None:
            raise ValueError("this model has no class map; train one with --heads prompt,dense")
        return spec, head

    def _current(self) -> EncodedImage:
        if self._encoded is None:
            raise ValueError("no image is set; call set_image first")
        return self._encoded

    def _prediction(self, decoded: MaskPrediction, row: int, choice: Choice, doubt: str) -> Prediction:
        assert self._encoded is not None  # predict_prompts has checked both
        assert self.image is not None
        scores = decoded.iou[row].tolist()
        picked = 0 if choice == "single" or len(scores) == 1 else 1 + int(np.argmax(scores[1:]))
        low_res = decoded.logits[row : row + 1, picked : picked + 1].float()  # (1, 1, h, w)
        logits = restore_logits(low_res, self._encoded.prepared.frame)[0, 0].cpu().numpy()
        if not (np.isfinite(logits).all() and math.isfinite(scores[picked])):
            model = self.bundle.path if self.bundle else "the model"
            raise BundleError(f"{model} gives NaN or infinity for {self.image.origin}; its weights are damaged")
        return Prediction(logits > 0, logits, scores[picked], low_res[0, 0].cpu().numpy(), self.image, doubt)

    def missing_channels(self, missing: Sequence[str | int]) -> frozenset[str]:
        """Return the names of the sensor's channels that an image lacks.

        Args:
            missing: names, 0-based indices or wavelengths of channels, as for `--channels`.

        Raises:
            ConfigError: there is no such channel, none is left, or the transfer layer needs them all.
        """
        if not missing:
            return frozenset()
        if self.bundle is None:
            raise ConfigError(
                "an untuned model needs all its channels; only a bundle of channel-attention can lack one"
            )
        path, spec, transfer = self.bundle.path, self.bundle.spec, self.bundle.parts.transfer
        if not transfer.takes_missing:
            raise ConfigError(
                f"{path} was trained with transfer layer {transfer.name!r}, which needs all its channels; "
                "a bundle trained with --mat channel-attention takes a missing one"
            )
        picked = pick_channels(self.channels, missing, origin="--missing")
        names = frozenset(self.channels[index].name for index in picked)
        if len(names) == len(self.channels) or {channel.name for channel in spec.channels} <= names:
            raise ConfigError(f"--missing leaves no channel: {path} has {describe(spec.channels)}")
        return names

    def optional_sources(self, missing: frozenset[str]) -> tuple[str, ...]:
        """Return the sources whose channels are all missing, so that they need no file."""
        return self.adapter.optional_sources(MissingChannels(self.channels, missing))

    def _from_files(self, image: Path | str | Files, missing: frozenset[str]) -> SensorImage:
        sources, optional = self.adapter.source_names(), self.optional_sources(missing)
        if not isinstance(image, Mapping):
            if len(sources) > 1:
                wanted = ", ".join(f"{source!r}: …" for source in sources)
                raise TypeError(f"modality {self.adapter.name!r} needs several files, {{{wanted}}}; got {str(image)!r}")
            image = {sources[0]: image}
        files = {source: Path(file) for source, file in image.items()}
        if not set(sources) - set(optional) <= set(files) <= set(sources):
            got = ", ".join(files) or "none"
            raise TypeError(f"modality {self.adapter.name!r} has the sources {', '.join(sources)}; got {got}")
        card = self.bundle.spec.card if self.bundle else DataCard(regions="instances")
        return load_sample(
            self.adapter,
            files,
            nodata=card.stated_nodata({source: file for source, file in files.items() if source not in optional}),
            missing=MissingChannels(self.channels, missing) if missing else None,
        )

    def _from_array(self, planes: npt.NDArray[np.generic]) -> SensorImage:
        name, channels = self.adapter.name, self.channels
        if planes.ndim == 2 and len(channels) == 1:
            planes = planes[None]  # (1, H, W)
        if planes.ndim != 3 or (channels and len(planes) != len(channels)):
            wanted = f"({len(channels)}, H, W) of {describe(channels)}" if channels else "(C, H, W)"
            raise ValueError(f"modality {name!r} takes an array {wanted}; got shape {planes.shape}")
        if not channels:
            raise ValueError(f"modality {name!r} learns its channels from files; give a SensorImage")
        image = SensorImage.from_planes(planes, channels, origin="array")
        check_units(image, planes)
        return image

    def _check_channels(self, image: SensorImage) -> None:
        """Refuse other channels than the bundle's; if only some are missing and may be, say how to state it."""
        if self.bundle is None:
            return
        try:
            check_sensor_channels(self.bundle.spec, image.channels, image.origin, self.bundle.path)
        except BundleError as error:
            found, expected = ({c.name for c in channels} for channels in (image.channels, self.channels))
            if not (found < expected and self.bundle.parts.transfer.takes_missing):
                raise
            missing = ",".join(channel.name for channel in self.channels if channel.name not in found)
            raise BundleError(f"{error}. If these are all there are: --missing {missing}") from None

    def _encode(self, image: SensorImage) -> EncodedImage:
        return EncodedImage(self.model, self.pipeline(image))


def _of_one_kind(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Group the indices of prompts that can be decoded together, at most `_PROMPTS_AT_ONCE` in a group."""
    kinds: dict[tuple[int, bool, bool], list[int]] = {}
    for place, prompt in enumerate(prompts):
        kind = (len(prompt.point_coords), prompt.box is None, prompt.mask_input is None)
        kinds.setdefault(kind, []).append(place)
    step = _PROMPTS_AT_ONCE
    return [places[start : start + step] for places in kinds.values() for start in range(0, len(places), step)]

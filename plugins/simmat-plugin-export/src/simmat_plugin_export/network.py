"""An exported model as the network of a `Predictor`: what SimMAT does with a bundle, it does with this one."""

from __future__ import annotations

import hashlib
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import simmat_runtime
import torch
from simmat_runtime import Letterbox
from simmat_runtime import manifest as names
from torch import Tensor, nn

from simmat.errors import BundleError, ConfigError
from simmat.foundation import (
    FoundationModel,
    ImageEmbedding,
    MaskPrediction,
    PromptBatch,
)
from simmat.model import SimMAT
from simmat.nn.dense_head import DenseAnswer, DenseHead
from simmat.types import FloatArray, SensorImage


def load(folder: Path) -> ExportedNetwork:
    """Load what `simmat export` wrote.

    Raises:
        BundleError: a file is missing or damaged, or onnxruntime cannot load it, or is not installed.
    """
    try:
        network = simmat_runtime.Network(folder, threads=torch.get_num_threads())
        for name in (
            names.ENCODER,
            names.DECODER,
            *([names.DENSE] if network.manifest.dense is not None else []),
        ):
            network.session(name)
    except simmat_runtime.ModelError as error:
        raise BundleError(str(error)) from error
    return ExportedNetwork(network)


class ExportedNetwork(SimMAT):
    """A network that runs in onnxruntime, on the CPU.

    Its encoder takes images in the sensor's units, by `for_image`, and prepares them itself.

    Args:
        exported: what was exported.
    """

    def __init__(self, exported: simmat_runtime.Network) -> None:
        dense = (
            None
            if exported.manifest.dense is None
            else cast(DenseHead, _Dense(exported))
        )
        super().__init__(
            _Digest(exported), cast(FoundationModel, nn.Module()), "image", dense
        )
        self._exported = exported
        self._planes: FloatArray | None = None
        self.eval().requires_grad_(False)

    def for_image(self, image: SensorImage) -> ExportedNetwork:
        """Return the network that encodes an image."""
        network = copy(self)
        network._planes = np.where(image.valid, image.data, np.float32(np.nan))
        return network

    def encode(self, planes: Tensor, content: Tensor | None = None) -> ImageEmbedding:
        """Encode the image of `for_image`; of what SimMAT prepared, only the place is compared.

        Raises:
            ConfigError: the image is to be fitted into the input otherwise than the exported model does it.
        """
        if self._planes is None:  # not asked by a predictor
            raise ConfigError(
                f"{self._exported.folder} is an exported model, which gives masks only; use the bundle for this"
            )
        manifest = self._exported.manifest
        letterbox = Letterbox(
            (self._planes.shape[1], self._planes.shape[2]),
            manifest.image_size,
            manifest.aspect,
        )
        covered = planes[0, 0].numel() if content is None else int(content.sum())
        if covered != letterbox.scaled_hw[0] * letterbox.scaled_hw[1]:
            raise ConfigError(
                f"{self._exported.folder} fits images into its input by aspect {manifest.aspect!r}, which the export "
                "has fixed; use the bundle for a protocol that stretches images"
            )
        levels = _run(self._exported, names.ENCODER, image=self._planes[None])
        ordered = [levels[f"level_{index}"] for index in range(len(levels))]
        return ImageEmbedding(
            tuple(ordered),
            tuple(manifest.image_size / level.shape[-1] for level in ordered),
        )

    def decode(self, embedding: ImageEmbedding, prompts: PromptBatch) -> MaskPrediction:
        """Predict masks for K prompts over the images of an embedding.

        Raises:
            ValueError: masks of another size than the decoder's own.
        """
        size, given = self._exported.manifest.mask_size, prompts.mask_input
        if given is not None and tuple(given.shape[-2:]) != size:
            raise ValueError(
                f"mask must be {size} logits, the low_res_logits of this model, got {tuple(given.shape[-2:])}"
            )
        found = _run(
            self._exported,
            names.DECODER,
            **_named(embedding),
            image_index=prompts.image_index.numpy(),
            point_coords=prompts.point_coords.numpy(),
            point_labels=prompts.point_labels.numpy(),
            boxes=np.zeros((0, 4), np.float32)
            if prompts.boxes is None
            else prompts.boxes.numpy(),
            mask_input=np.zeros((0, 1, *size), np.float32)
            if given is None
            else given.numpy(),
        )
        return MaskPrediction(found["logits"], found["iou"])


class _Dense(nn.Module):
    """The dense head.

    Args:
        exported: what was exported.
    """

    def __init__(self, exported: simmat_runtime.Network) -> None:
        super().__init__()
        self._exported = exported

    def forward(self, embedding: ImageEmbedding) -> DenseAnswer:
        """Return classes and distances."""
        found = _run(self._exported, names.DENSE, **_named(embedding))
        return DenseAnswer(class_logits=found["classes"], distance=found["distance"])


class _Digest(nn.Module):
    """A parameter that stands for the files, so that what is kept of one export is not taken for another's.

    Args:
        exported: what was exported.
    """

    def __init__(self, exported: simmat_runtime.Network) -> None:
        super().__init__()
        digest = hashlib.sha256(
            "".join(sorted(exported.manifest.files.values())).encode()
        ).digest()
        self.digest = nn.Parameter(torch.tensor(list(digest), dtype=torch.float32))


def _named(embedding: ImageEmbedding) -> dict[str, Any]:
    return {
        f"level_{index}": level.numpy() for index, level in enumerate(embedding.levels)
    }


def _run(
    exported: simmat_runtime.Network, file: str, **inputs: Any
) -> dict[str, Tensor]:
    """Run one file; return its outputs by name; BundleError if that fails."""
    try:
        return {
            name: torch.from_numpy(value)
            for name, value in exported.run(file, **inputs).items()
        }
    except simmat_runtime.ModelError as error:
        raise BundleError(str(error)) from error

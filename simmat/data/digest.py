"""Digests of the parts of a data set, by which a run finds what changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset, Sample
from simmat.data.samples import start_of_paths
from simmat.errors import few_of

_MAX_NAMED = 3
"""Most changed parts that a message lists."""
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DatasetDigest:
    """Digests of the parts of a data set: the card, and the split, images and labels of each sample.

    Attributes:
        digests: (S, P, 32) the sha256 of the P files of each of its S samples.
    """

    dataset: Dataset
    digests: Bytes = field(repr=False)

    @cached_property
    def parts(self) -> dict[str, str]:
        """The name of each part, for messages, and the start of its sha256, in the order of the samples."""
        start = len(start_of_paths(self.dataset.root))
        parts = {"the data card": _short(self.dataset.card.model_dump_json())}
        for sample, digests in zip(self.dataset.samples, self.digests, strict=True):
            parts[f"sample {sample.id!r}"] = (
                f"{sample.split} {sample.zero_means}{' predicted' * sample.predicted}"
            )
            for path, digest in zip(sample.paths, digests, strict=True):
                parts[f"{path[start:]} of {sample.id!r}"] = digest.tobytes().hex()[:32]
            labels = annotations_digest(self.dataset, sample)
            if labels:
                parts[f"annotations of {sample.id!r}"] = labels
        return parts

    @cached_property
    def fingerprint(self) -> str:
        """One digest of all parts; it does not change when the folder is moved."""
        digest = hashlib.sha256()
        for part in self.parts.items():
            digest.update(json.dumps(part).encode())
        return f"content-2:{digest.hexdigest()}"

    def reference_digests(self, samples: Iterable[Sample]) -> Bytes:
        """Return (N, 32) the sha256 of the reference files of some samples of the data set."""
        rows = {sample.id: row for row, sample in enumerate(self.dataset.samples)}
        return self.digests[[rows[sample.id] for sample in samples], 0]

    def notes(self) -> dict[str, object]:
        """Return json values that a run stores for `changes_since`."""
        return {"format": 1, "fingerprint": self.fingerprint, "parts": self.parts}

    def changes_since(self, notes: object, fingerprint: str) -> str:
        """Describe what changed since a run: how many parts, and the first; "" if the notes are of another."""
        if not isinstance(notes, dict) or notes.get("fingerprint") != fingerprint:
            return ""
        then = notes.get("parts")
        if not isinstance(then, dict):
            return ""
        changed = [
            name for name in self.parts | then if self.parts.get(name) != then.get(name)
        ]
        if not changed:
            return "the order of the samples differs"
        return f"{len(changed)} part{'s' * (len(changed) > 1)} changed: {few_of(changed, _MAX_NAMED)}"


def annotations_digest(dataset: Dataset, sample: Sample) -> str:
    """Return the start of the sha256 of a sample's COCO annotations; "" if it has a mask."""
    if dataset.coco is None or sample.has_mask:
        return ""
    size_hw = dataset.coco.sizes_hw[sample.image_id]
    return _short(
        json.dumps((size_hw, dataset.coco.annotations[sample.image_id]), sort_keys=True)
    )


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]

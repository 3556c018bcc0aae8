"""Labels that a training contradicts: their file, and which of them still hold."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from simmat.data.dataset import Sample
from simmat.documents import FromLists, StrictModel
from simmat_plugin_annotate.labels import LabelledImage
from simmat_plugin_annotate.masks import (
    MaskDocument,
    decode_mask,
    encode_mask,
    subtract,
)
from simmat_plugin_annotate.state import read_stored

if TYPE_CHECKING:
    from simmat_plugin_report.planted_errors import Ranked

    from simmat.data.instances import Instance


class Suspect(StrictModel):
    """A label that a training contradicts.

    Attributes:
        id: names it in requests.
        key: of its image.
        kind: an object without a label ("missed"), a wrong "class", a "border" beside the object, or two objects in one
            label ("merged").
        score: share of errors among suspicions with such evidence, if one label in twenty is wrong; 0 to 1.
        class_id: class of the label, if that is suspected; else None.
        seen_class: class that the model sees there; None without classes.
        place: the label, or the object that may be missed.
        seen: what the model sees there instead.
    """

    id: str
    key: str
    kind: Literal["missed", "class", "border", "merged"]
    score: float
    class_id: int | None
    seen_class: int | None
    place: MaskDocument
    seen: FromLists[tuple[MaskDocument, ...]]


class LastCheck(StrictModel):
    """The last check, and what the user says is right.

    Attributes:
        images: number of compared images; 0 if there was no check.
        labels: number of their labels.
        unchecked: number of images that every training learned from.
        left_out: why trainings are not used.
        suspects: most suspected first.
        right: suspects of this check and of earlier ones whose labels are right, as the user says.
    """

    format: int = Field(1, ge=1, le=1)
    images: int = 0
    labels: int = 0
    unchecked: int = 0
    left_out: FromLists[tuple[str, ...]] = ()
    suspects: FromLists[tuple[Suspect, ...]] = ()
    right: FromLists[tuple[Suspect, ...]] = ()

    @classmethod
    def read(cls, path: Path) -> LastCheck:
        """Read the file; without a file return that nothing was checked."""
        return read_stored(cls, path, "then check the labels again")


def standing(
    suspects: Sequence[Suspect], labels: LabelledImage
) -> dict[str, int | None]:
    """Return id -> object of those suspects of an image that still hold, with None for an object without a label.

    The pixels of a label must be as they were, and its class if that is suspected. An object without a label must not
    have got one.
    """
    found: dict[str, int | None] = {}
    for one in suspects:
        if one.kind == "missed":
            region = region_of(one)
            rest = subtract(region, labels.objects.values())
            if rest is not None and 2 * rest.area >= region.area:
                found[one.id] = None
            continue
        place = one.place.model_dump(mode="json")
        for number, region in labels.objects.items():
            if list(region.box_xyxy) != place["box"] or encode_mask(region) != place:
                continue
            if one.class_id in (None, labels.class_of(region)):
                found[one.id] = number
    return found


def suspect_of(ranked: Ranked, sample: Sample, key: str) -> Suspect:
    """Return a suspicion in pixels of the whole image."""
    one = ranked.suspicion
    y0, x0 = (0, 0) if sample.window is None else sample.window[:2]

    def mask_of(region: Instance) -> MaskDocument:
        moved = replace(region, window=region.window.moved(y0, x0))
        return MaskDocument.model_validate(encode_mask(moved))

    return Suspect(
        id=secrets.token_hex(8),
        key=key,
        kind=one.kind,
        score=round(ranked.score, 4),
        class_id=one.place.class_id if one.kind == "class" else None,
        seen_class=one.suggested_class,
        place=mask_of(one.place),
        seen=tuple(mask_of(region) for region in one.suggested),
    )


def region_of(suspect: Suspect) -> Instance:
    """Return the label, or the object that may be missed."""
    _, _, x1, y1 = suspect.place.box
    return decode_mask(suspect.place, (y1, x1))


def claim_of(suspect: Suspect) -> tuple[str, str, int | None]:
    """Return what is said of its pixels: image, kind and class of the label."""
    return suspect.key, suspect.kind, suspect.class_id

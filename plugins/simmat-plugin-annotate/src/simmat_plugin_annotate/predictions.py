"""Predictions of other programs, to correct: a COCO file, such as `simmat predict` writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field

from simmat.data.formats.coco import draw_region, segmentation_problem
from simmat.data.instances import Instance
from simmat.data.samples import Sample
from simmat.documents import FromLists, StrictModel, parse
from simmat.errors import DataError
from simmat.io.reading import read_json
from simmat_plugin_annotate.masks import encode_mask, is_known

COCO_FILE = "coco.json"
"""The file of `simmat predict` with the objects of all images."""
NO_CLASS = "object"
"""Category of objects without a class, as `simmat predict` writes it."""


class _Image(StrictModel, extra="ignore"):
    id: int | str
    file_name: str
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class _Category(StrictModel, extra="ignore"):
    id: int
    name: str


class _Annotation(StrictModel, extra="ignore"):
    image_id: int | str
    category_id: int
    segmentation: Any
    score: float | None = None


class _Coco(StrictModel, extra="ignore"):
    images: FromLists[tuple[_Image, ...]]
    categories: FromLists[tuple[_Category, ...]]
    annotations: FromLists[tuple[_Annotation, ...]]


@dataclass
class Predictions:
    """Predicted objects by image.

    Attributes:
        unknown: names of images that the folder does not have.
    """

    class_names: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    _images: dict[str, _Image] = field(default_factory=dict)
    _found: dict[str, list[_Annotation]] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, samples: Mapping[str, Sample]) -> Predictions:
        """Read a COCO file, or the one in a folder of `simmat predict`.

        Args:
            samples: key of an image -> its files.

        Raises:
            ConfigError: it is not a COCO document.
            DataError: it cannot be read, or has no image of the folder.
        """
        file = path / COCO_FILE if path.is_dir() else path
        if path.is_dir() and not file.exists():
            raise DataError(
                f"{path}: no {COCO_FILE} there; `simmat predict` writes one with --everything, or with --format coco"
            )
        coco = parse(_Coco, read_json(file, "COCO json"), str(file))
        keys = _keys_by_name(samples)
        found: dict[int | str, list[_Annotation]] = defaultdict(list)
        for annotation in coco.annotations:
            found[annotation.image_id].append(annotation)
        names = {category.id: category.name for category in coco.categories}
        result = cls(_names=names)
        unknown = []
        for image in coco.images:
            key = _key_of(image.file_name, keys)
            # a second image of that name is of another folder
            if key is None or key in result._images:
                unknown.append(image.file_name)
            elif found[image.id]:
                result._images[key], result._found[key] = image, found[image.id]
        if unknown and len(unknown) == len(coco.images):
            raise DataError(
                f"{file}: none of its {len(unknown)} images is in this folder, such as {unknown[0]!r}; a file_name "
                "is the path of an image below images/"
            )
        used = {
            names.get(one.category_id, NO_CLASS): None
            for every in result._found.values()
            for one in every
        }
        result.class_names = tuple(name for name in used if name != NO_CLASS)
        result.unknown = tuple(unknown)
        return result

    def of_image(self, key: str) -> int:
        """Return the number of objects of an image."""
        return len(self._found.get(key, ()))

    def suggestions(
        self,
        key: str,
        size_hw: tuple[int, int],
        labelled: Sequence[Instance],
        class_ids: Mapping[str, int],
    ) -> list[dict[str, Any]]:
        """Return the objects of an image that are not labelled yet, best first, as suggestions for the page.

        Args:
            size_hw: (height, width) of the image in pixels.
            class_ids: name of a class -> its id in the folder.

        Raises:
            DataError: an object cannot be drawn, or is of an image of another size.
        """
        if key not in self._found:
            return []
        image, objects = self._images[key], []
        if (image.height, image.width) != size_hw:
            raise DataError(
                f"{image.file_name}: its predictions are for {image.width}x{image.height} pixels, the image has "
                f"{size_hw[1]}x{size_hw[0]} (width x height)"
            )
        for one in self._found[key]:
            if problem := segmentation_problem(one.segmentation, size_hw):
                raise DataError(
                    f"{image.file_name}: a predicted object cannot be drawn: {problem}"
                )
            region = draw_region(one.segmentation, size_hw, None)
            if region is None or is_known(region, labelled):
                continue
            (x0, y0, _, _), (row, column) = (
                region.box_xyxy,
                np.argwhere(region.crop)[0].tolist(),
            )
            objects.append(
                {
                    "mask": encode_mask(region),
                    "score": 1.0
                    if one.score is None
                    else min(max(one.score, 0.0), 1.0),
                    "area": region.area,
                    "class": class_ids.get(self._names.get(one.category_id, NO_CLASS)),
                    "class_probability": None,
                    "point": [x0 + column, y0 + row],
                }
            )
        return sorted(objects, key=lambda found: -found["score"])


def _keys_by_name(samples: Mapping[str, Sample]) -> dict[str, str | None]:
    """Return path without ending, or unique name of a file -> key of the image; None for a name of several."""
    keys: dict[str, str | None] = {}
    for key, sample in samples.items():
        stem = PurePosixPath(sample.reference.name).stem
        keys[stem] = None if stem in keys else key
    return keys | {sample.id: key for key, sample in samples.items()}


def _key_of(file_name: str, keys: Mapping[str, str | None]) -> str | None:
    path = PurePosixPath(file_name.replace("\\", "/"))
    parts = path.with_suffix("").parts if path.name else ()
    tails: Iterable[str] = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((key for tail in tails if (key := keys.get(tail)) is not None), None)

"""Align the cameras of a rig, or each pair for itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simmat.data.samples import Sample, evenly_spaced
from simmat.documents import parse
from simmat.errors import ConfigError, DataError, few_of
from simmat.io.files import atomic_write_json, require_inside
from simmat.io.reading import read_json
from simmat.sensors.warp import EACH_FILE, EachAlignment
from simmat.types import SensorImage
from simmat_plugin_align.camera_tags import CameraFile, CameraStart, camera_start
from simmat_plugin_align.features import Matrix, Picture
from simmat_plugin_align.pairs import Camera, Rig, pairs_of
from simmat_plugin_align.registration import (
    SIDES,
    Found,
    Pair,
    mirrored,
    refine,
    search,
    turned_a_quarter,
)

Progress = Callable[[int], object]
"""Called with 1 after each pair."""
MIN_RATIO = 1.15
"""Least correlation of an alignment, relative to that of the mirrored images, which have nothing in common."""
MIN_SCORE = 0.06
"""Least correlation: noise has 0.03."""
MIN_MIRRORED = 0.15
"""Least correlation of mirrored or turned images that names them so; a camera that is mirrored has 0.4 and more."""
MAX_APART = 0.1
"""Distance between the camera's own values and the result that is no contradiction, relative to the longer side."""
MAX_MOVED = 0.015
"""Residual of a single pair, relative to the longer side, above which it is doubtful."""
_SHOWN = 4
"""Pairs on the page, at most."""


@dataclass(frozen=True)
class UsedStart:
    """What became of the camera's own values.

    Attributes:
        tags: which tags state them.
        used: whether the search from them fitted best.
        apart_px: mean distance of the corners between them and the result, in pixels of the second camera.
    """

    tags: str
    used: bool
    apart_px: float


@dataclass(frozen=True)
class Aligned:
    """Where a camera's images lie.

    Attributes:
        rig: the folder.
        camera: whose images they are.
        model: the kind of matrix, for people.
        matrices: sample -> (3, 3) matrix from pixels of the first camera to those of this one.
        shared: the matrix of all; None if each has its own.
        sizes_hw: (height, width) of the images of both cameras.
        residuals_px: sample -> how far a pair alone is from its matrix, in pixels of the first camera; of a matrix from
            a single pair, how far it was refined, see `moved_px`.
        failed: ids of samples that could not be aligned.
        shown: samples on the page, with their images.
        starts: what became of the camera's own values: one for a rig, or one for each pair whose files have them.
    """

    rig: Rig
    camera: Camera
    model: str
    matrices: dict[str, Matrix]
    shared: Matrix | None
    sizes_hw: tuple[tuple[int, int], tuple[int, int]]
    residuals_px: dict[str, float]
    failed: Sequence[str]
    shown: Sequence[tuple[str, SensorImage, SensorImage]]
    starts: Sequence[UsedStart] = ()

    @property
    def is_of_single_pairs(self) -> bool:
        """Whether each matrix is from one pair."""
        return self.shared is None or len(self.matrices) == 1

    @property
    def doubtful(self) -> list[str]:
        """Ids of single pairs whose coarse and fine edges disagree about their matrix."""
        if not self.is_of_single_pairs:
            return []
        found = []
        for name, residual in self.residuals_px.items():
            if residual > MAX_MOVED * max(self.sizes_hw[0]):
                found.append(name)
        return found

    @property
    def source(self) -> str:
        """The source whose images are aligned."""
        return self.camera.source

    def fields(self) -> dict[str, Any]:
        """Return what the data card states."""
        fields: dict[str, Any] = {"reference": self.rig.cameras[0].source}
        if self.shared is None:
            text = json.dumps([self.matrices[name].tolist() for name in self.matrices])
            return {**fields, "version": hashlib.sha256(text.encode()).hexdigest()[:12]}
        first, second = self.sizes_hw
        return {
            **fields,
            "matrix": self.shared.tolist(),
            "reference_size": [first[1], first[0]],
            "size": [second[1], second[0]],
        }

    @property
    def apart_px(self) -> float:
        """Median distance of the corners between the camera's own values and the result."""
        return float(np.median([one.apart_px for one in self.starts]))

    def document(self) -> dict[str, Any]:
        """Return what --json prints."""
        values = sorted(self.residuals_px.values())
        found: dict[str, Any] = {"model": self.model, "pairs": len(self.matrices)}
        if values:
            found["residual_px"] = round(float(np.median(values)), 3)
            found["residual_90_px"] = round(float(np.quantile(values, 0.9)), 3)
        if self.starts:
            found["camera_values"] = {
                "tags": self.starts[0].tags,
                "used": sum(one.used for one in self.starts),
                "apart_px": round(self.apart_px, 3),
            }
        if self.shared is not None:
            return {"matrix": self.shared.tolist(), **found}
        each = {name: matrix.tolist() for name, matrix in self.matrices.items()}
        residuals = {name: round(value, 3) for name, value in self.residuals_px.items()}
        return {
            "matrices": each,
            "failed": list(self.failed),
            "doubtful": self.doubtful,
            "residuals_px": residuals,
            **found,
        }

    def _starts_text(self) -> str:
        """Return what became of the camera's own values."""
        tags = self.starts[0].tags
        used = sum(one.used for one in self.starts)
        text = f"the search started also from the camera's values ({tags})"
        if self.shared is None:
            text += f", which fitted best in {used} of {len(self.starts)} pairs"
        elif used:
            text += ", which fitted best"
        else:
            text += ", but fitted better without them"
        text += f"; they differ by {self.apart_px:.1f} px of {self.source} from the result (corners)"
        if self.apart_px > MAX_APART * max(self.sizes_hw[1]):
            text += (
                f"\nWarning: the camera's values contradict the result; look at the pictures. If they are right, write "
                f"them to the card as alignment.{self.source}"
            )
        return text

    def text(self) -> str:
        """Return what people read."""
        values = list(self.residuals_px.values())
        first = self.rig.cameras[0].source
        pairs = "1 pair" if len(self.matrices) == 1 else f"{len(self.matrices)} pairs"
        text = f"{self.source} on {first}: {self.model}, {pairs}"
        if len(values) == 1:
            text += f"; residual {values[0]:.1f} px of {first}"
        elif values:
            text += (
                f"; residual {np.median(values):.1f} px (median), {np.quantile(values, 0.9):.1f} px (90 % of pairs), "
                f"in pixels of {first}"
            )
        if values and self.is_of_single_pairs:
            text += ", between coarse and fine edges"
        if self.shared is not None:
            rows = "\n".join(
                "  " + " ".join(f"{value:12.6g}" for value in row)
                for row in self.shared
            )
            text += f"\n{rows}"
        if self.starts:
            text += f"\n{self._starts_text()}"
        if self.shared is not None and self.is_of_single_pairs:
            text += (
                "\nCaution: the matrix is from one pair, which tells less than many; use about 20 pairs that show the "
                "scene at other places"
            )
        if self.doubtful:
            text += (
                f"\nWarning: {len(self.doubtful)} of {len(self.matrices)} pairs are doubtful, because coarse and "
                f"fine edges disagree by more than {MAX_MOVED:.1%} of the longer side: "
                f"{few_of(self.doubtful)}. Look at their pictures; remove them, or correct their matrices"
            )
        if self.failed:
            text += (
                f"\nWarning: {len(self.failed)} pairs have too little in common: {few_of(list(self.failed))}. They are "
                f"refused when they are loaded; remove them, or write their matrices to {EACH_FILE}"
            )
        return text


def kept_matrices(rig: Rig) -> dict[Path, dict[str, Any]]:
    """Return folder -> file name -> matrix of all that a file beside images states already, also by hand.

    The folders are those in which `write_matrices` writes.

    Raises:
        ConfigError: such a file is damaged.
        OutputError: a link leads out of the rig's folder.
    """
    found: dict[Path, dict[str, Any]] = {}
    for camera in rig.cameras[1:]:
        for sample in rig.samples:
            file = sample.files[camera.source]
            if file.parent not in found:
                found[file.parent] = _stated_matrices(rig.root, file.parent)
            before = rig.before.get(camera.source)
            if before is not None and before.reference != rig.cameras[0].source:
                found[file.parent].pop(file.name, None)  # it is for another grid
    return found


def _stated_matrices(root: Path, folder: Path) -> dict[str, Any]:
    path = folder / EACH_FILE
    require_inside(root, path)
    if not path.exists():
        return {}
    content = read_json(path, "alignment", error=ConfigError)
    return dict(parse(EachAlignment, content, str(path)).matrices)


def write_matrices(
    results: Sequence[Aligned], kept: Mapping[Path, Mapping[str, Any]]
) -> None:
    """Write the matrices of single images beside their files, with those that were there for other images.

    Files of several cameras may be in one folder.
    """
    by_folder = {folder: dict(matrices) for folder, matrices in kept.items()}
    for result in results:
        for sample in result.rig.samples:
            if sample.id in result.matrices:
                file = sample.files[result.source]
                matrix = result.matrices[sample.id].tolist()
                by_folder.setdefault(file.parent, {})[file.name] = matrix
    for folder, matrices in by_folder.items():
        atomic_write_json(folder / EACH_FILE, {"format": 1, "matrices": matrices})


def align_rig(rig: Rig, count: int, progress: Progress) -> list[Aligned]:
    """Estimate one matrix for each further camera, from all pairs together.

    Raises:
        DataError: images cannot be read, differ in size, or have nothing in common.
    """
    samples = evenly_spaced(rig.samples, count)
    return [_aligned(rig, camera, samples, progress) for camera in rig.cameras[1:]]


def _aligned(
    rig: Rig, camera: Camera, samples: Sequence[Sample], progress: Progress
) -> Aligned:
    pairs: list[Pair] = []
    shown = []
    places = evenly_spaced(range(len(samples)), _SHOWN)
    sizes: dict[str, tuple[int, int]] = {}
    for number, (sample, first, second) in enumerate(pairs_of(rig, camera, samples)):
        for image, source in ((first, rig.cameras[0].source), (second, camera.source)):
            size = sizes.setdefault(source, image.size_hw)
            if image.size_hw != size:
                raise DataError(
                    f"{image.origin or sample.id}: is {image.size_hw[1]}x{image.size_hw[0]}, other images of {source} "
                    f"are {size[1]}x{size[0]} (width x height); one matrix holds for one size of image. Use images as "
                    "the camera writes them, or --each"
                )
        pairs.append((Picture.of(first), Picture.of(second)))
        if number in places:
            shown.append((sample.id, first, second))
        progress(1)
    sizes_hw = pairs[0][0].size_hw, pairs[0][1].size_hw
    stated = _stated(rig, camera, samples[0], sizes_hw)
    found = checked_search(
        pairs,
        f"{camera.source} and {rig.cameras[0].source} of {rig.root}",
        None if stated is None else stated.matrix,
    )
    matrix = refine(pairs, found.matrix, "homography", zoom=found.zoom)
    residuals = {}
    for sample, pair in zip(samples, pairs, strict=True):
        residuals[sample.id] = residual_px(pair, matrix, found.zoom)
    if len(pairs) == 1:
        residuals[samples[0].id] = moved_px(pairs[0], found.matrix, matrix)
    return Aligned(
        rig,
        camera,
        "homography",
        {sample.id: matrix for sample in samples},
        matrix,
        sizes_hw,
        residuals,
        (),
        shown,
        _starts(stated, found, matrix, sizes_hw),
    )


def _stated(
    rig: Rig,
    camera: Camera,
    sample: Sample,
    sizes_hw: tuple[tuple[int, int], tuple[int, int]],
) -> CameraStart | None:
    """Return what the files of a sample say of where their cameras look."""
    files = []
    for one, size_hw in zip((rig.cameras[0], camera), sizes_hw, strict=True):
        files.append(CameraFile(one.sensor, sample.files[one.source], size_hw))
    return camera_start(*files)


def _starts(
    stated: CameraStart | None,
    found: Found,
    matrix: Matrix,
    sizes_hw: tuple[tuple[int, int], tuple[int, int]],
) -> tuple[UsedStart, ...]:
    """Return what became of the camera's values, if there are any."""
    if stated is None:
        return ()
    height, width = sizes_hw[0]
    corners = [(x, y, 1.0) for x in (0, width - 1) for y in (0, height - 1)]
    one, other = matrix @ np.transpose(corners), stated.matrix @ np.transpose(corners)
    apart_px = float(np.hypot(*(one[:2] / one[2] - other[:2] / other[2])).mean())
    return (UsedStart(stated.tags, found.zoom is not None, apart_px),)


def align_each(rig: Rig, progress: Progress) -> list[Aligned]:
    """Estimate a matrix for each pair.

    Raises:
        DataError: images cannot be read, or most pairs have nothing in common.
    """
    results = []
    for camera in rig.cameras[1:]:
        matrices: dict[str, Matrix] = {}
        failed: dict[str, DataError] = {}
        shown: list[tuple[str, SensorImage, SensorImage]] = []
        starts: list[UsedStart] = []
        doubtful: list[tuple[str, SensorImage, SensorImage]] = []
        residuals: dict[str, float] = {}
        sizes = ((0, 0), (0, 0))
        for sample, first, second in pairs_of(rig, camera, rig.samples):
            pair = (Picture.of(first), Picture.of(second))
            sizes = (first.size_hw, second.size_hw)
            stated = _stated(rig, camera, sample, sizes)
            try:
                found = checked_search(
                    [pair],
                    f"{camera.source} of {sample.id!r}",
                    None if stated is None else stated.matrix,
                )
            except DataError as error:
                failed[sample.id] = error
            else:
                matrix = refine([pair], found.matrix, "homography", zoom=found.zoom)
                matrices[sample.id] = matrix
                starts += _starts(stated, found, matrix, sizes)
                residual = moved_px(pair, found.matrix, matrix)
                residuals[sample.id] = residual
                if residual > MAX_MOVED * max(first.size_hw):
                    doubtful.append((sample.id, first, second))
                elif len(shown) < _SHOWN:
                    shown.append((sample.id, first, second))
                del doubtful[_SHOWN:]
            progress(1)
        if len(failed) > len(matrices):
            reason = next(iter(failed.values()))
            raise DataError(
                f"{rig.root}: {len(failed)} of {len(rig.samples)} pairs cannot be aligned, such as: {reason}"
            )
        results.append(
            Aligned(
                rig,
                camera,
                "a matrix for each pair",
                matrices,
                None,
                sizes,
                residuals,
                list(failed),
                [*doubtful, *shown],
                starts,
            )
        )
    return results


def checked_search(
    pairs: Sequence[Pair], what: str, start: Matrix | None = None
) -> Found:
    """Return a first matrix; DataError if mirrored or turned images fit better, or none fits better than others.

    Args:
        pairs: images of both cameras.
        what: what they are, for messages.
        start: where the camera says that the second image lies. It is searched with and without it; each search is
            checked by itself, so that a wrong start does no harm, and the better one is returned.
    """
    if start is None:
        return _checked_search(pairs, what, None)
    try:
        near = _checked_search(pairs, what, start)
    except DataError:
        return _checked_search(pairs, what, None)
    try:
        found = _checked_search(pairs, what, None)
    except DataError:
        return near
    return near if near.score > found.score else found


def _checked_search(pairs: Sequence[Pair], what: str, start: Matrix | None) -> Found:
    """Search, and compare with mirrored and turned images.

    They have the same edges as the true ones, but none where the first camera sees one. If they correlate as well,
    there is nothing to align by.
    """
    found = search(pairs, start)
    others = {name: search(turned, start).score for name, turned in mirrored(pairs)}
    name = max(others, key=lambda one: others[one])
    turned = others[name] >= MIN_MIRRORED
    if turned and others[name] >= MIN_RATIO * found.score:
        raise _misplaced(what, name, others[name], found.score)
    if found.score < max(MIN_SCORE, MIN_RATIO * others[name]):
        for way, quarter in turned_a_quarter(pairs):
            score = search(quarter).score
            if score >= max(MIN_MIRRORED, MIN_RATIO * found.score):
                raise _misplaced(what, way, score, found.score)
        raise DataError(
            f"{what}: nothing to align by: the best correlation of edges is {found.score:.2f}, by chance it is "
            f"{others[name]:.2f}. Check that the images of each pair show the same scene at the same time, use more "
            "pairs, or pairs with more edges"
        )
    return found


def _misplaced(what: str, way: str, score: float, otherwise: float) -> DataError:
    """Return an error that says in which way images must be mirrored or turned to fit."""
    return DataError(
        f"{what}: the images fit if they are {way} (correlation {score:.2f}, otherwise {otherwise:.2f}); write them as "
        "the other camera sees the scene"
    )


def residual_px(pair: Pair, matrix: Matrix, zoom: float | None) -> float:
    """Return by how many pixels of the first camera a pair alone would shift the centre."""
    alone = refine([pair], matrix, "translation", SIDES[:1], zoom)
    height, width = pair[0].size_hw
    centre = np.asarray([(width - 1) / 2, (height - 1) / 2, 1.0])
    seen = np.linalg.inv(matrix) @ alone @ centre
    return float(np.hypot(*(seen[:2] / seen[2] - centre[:2])))


def moved_px(pair: Pair, searched: Matrix, matrix: Matrix) -> float:
    """Return how far the corners of the first image move from what was searched to what was refined, on average.

    It is in pixels of the first camera. The search compares coarse edges, and the refinement fine ones: if they
    disagree, the images have little in common.
    """
    right, bottom = pair[0].size_hw[1] - 1.0, pair[0].size_hw[0] - 1.0
    corners = np.transpose(
        [(0, 0, 1), (right, 0, 1), (0, bottom, 1), (right, bottom, 1)]
    )
    seen = np.linalg.inv(matrix) @ searched @ corners
    return float(np.hypot(*(seen[:2] / seen[2] - corners[:2])).mean())

"""What a call asks of each image, for one model: `resolve` makes it of the options, once, before any image is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.calibration import MAX_ERROR_RATE, min_score
from simmat.errors import ConfigError, unknown_name
from simmat.inference.options import PredictOptions, prompt_values
from simmat.inference.table import Columns
from simmat.io.states import file_states
from simmat.plugin_specs import ResultFormat, ResultKind
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry
    from simmat.predictor import EverythingSettings, Predictor, Reference
    from simmat.types import ImageReader


from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from simmat.errors import DataError
from simmat.plugins.registry import import_from_string

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry
    from simmat.types import ImageReader


RECORD_FORMAT = 1
"""Format number of the json of an image or object; increased when an older reader would misread a change."""


@dataclass(frozen=True)
class Request:
    """What is asked of each image of a call, for one model.

    Attributes:
        options: what the user gives.
        kinds: what is found: one object for each prompt, all objects in the same files, classes.
        formats: those that the user names.
        automatic: those that "auto" may stand for; empty if the user does not write it.
        settings: how objects are found without prompts; None finds none.
        reference: what shows the objects to find; None finds every object.
        min_score: smallest score of an object to keep; None keeps all.
        kept_classes: label values to keep; None keeps all.
        missing: names of the channels that the files lack.
        columns: those of the measurements, which all images must have; None if nothing is measured, or if the model
            takes images of the same channels only.
    """

    options: PredictOptions
    kinds: tuple[ResultKind, ...]
    formats: tuple[ResultFormat, ...] = ()
    automatic: tuple[ResultFormat, ...] = ()
    settings: EverythingSettings | None = None
    reference: Reference | None = None
    min_score: float | None = None
    kept_classes: frozenset[int] | None = None
    missing: frozenset[str] = frozenset()
    columns: Columns | None = None

    @property
    def uncertainty(self) -> bool:
        """True if it is also found how much the mask of a prompt differs between views of the image."""
        return any(one.name == UNCERTAINTY for one in self.formats)

    def endings(self) -> tuple[str, ...]:
        """Return what the names of an image's files may end with."""
        found: dict[str, None] = {".json": None}
        for kind in self.kinds:
            for one in (*self.formats, *self.automatic):
                if kind in one.kinds and not one.one_file:
                    found.update(
                        dict.fromkeys(
                            ending.format(kind=kind) for ending in one.endings
                        )
                    )
        return tuple(found)

    def formats_for_call(self) -> tuple[ResultFormat, ...]:
        """Return the formats that are one file for all images."""
        every = dict.fromkeys((*self.formats, *self.automatic))
        return tuple(
            one for one in every if one.one_file and can_hold_kinds(one, self.kinds)
        )

    def formats_for_image(
        self, kind: ResultKind, image: ImageReader
    ) -> tuple[ResultFormat, ...]:
        """Return the formats of an image's files in the order in which they are written.

        Raises:
            DataError: a format that the user named cannot hold an image of this size or place.
        """
        chosen = [one for one in self.formats if kind in one.kinds]
        for one in chosen:
            check_image(one, image)
        places: set[str] = {kind}
        if image.georeference is not None:
            places.add(f"georeferenced {kind}")
        automatic = [
            one
            for one in self.automatic
            if not places.isdisjoint(one.auto) and can_hold(one, image)
        ]
        replaced = {one.replaces for one in automatic}
        for one in automatic:
            if one.name not in replaced and one not in chosen:
                chosen.append(one)
        return tuple(one for one in in_order(chosen) if not one.one_file)

    def digest(
        self, files: Mapping[str, Path], prompts: Mapping[str, Prompt], model: str
    ) -> str:
        """Return a digest of all that the results of an image depend on.

        Args:
            files: source -> file of the image.
            prompts: name -> prompt in its pixels.
            model: digest of the model.
        """
        map_file: dict[str, Path] = {}
        if self.options.is_map_file and self.options.prompts is not None:
            map_file = {"": self.options.prompts}
        names = [one.name for one in self.formats]
        found = (
            self.kinds,
            names,
            bool(self.automatic),
            self.settings,
            self.reference,
            self.min_score,
        )
        asked = self.options.model_dump(mode="json", include=_IN_DIGEST)
        if self.options.measure:
            asked["measure"] = self.options.pixel_size_um
        classes = None
        if self.kept_classes is not None:
            classes = sorted(self.kept_classes)
        marked = [(name, prompt_values(prompt)) for name, prompt in prompts.items()]
        return request_digest(
            model,
            files_key(files),
            files_key(map_file),
            repr(found),
            asked,
            classes,
            marked,
        )


_IN_DIGEST = {
    "missing",
    "points",
    "negative",
    "box",
    "crs",
    "mask",
    "tile",
    "overlap",
    "mosaic",
}
"""Options on which the results depend as they are given; the others are resolved, or change nothing."""


def resolve(
    options: PredictOptions,
    predictor: Predictor,
    registry: Registry,
    columns: Columns | None,
    note: Callable[[str], object],
) -> Request:
    """Return what the options ask of a model.

    Args:
        options: what the user gives.
        predictor: the model.
        registry: has the formats.
        columns: see `Request`.
        note: called with what the user should know before the results.

    Raises:
        ConfigError: the model cannot find what is wanted, or a class or format is unknown.
    """
    least = options.min_score
    if least == "auto":
        origin = (
            "an untuned model"
            if predictor.bundle is None
            else str(predictor.bundle.path)
        )
        least = min_score(
            predictor.calibration, options.max_error_rate or MAX_ERROR_RATE, origin
        )
        note(f"--min-score auto: {least:.3f}")
    if options.semantic:
        predictor.required_dense()  # raises before any work
    reference = None
    if options.reference:
        reference = _reference(options, predictor)
    settings = _settings(options, predictor, reference)
    kinds = _kinds(options, registry)
    formats, automatic = _formats(options, kinds, registry)
    classes = None
    if options.classes is not None and not options.reference:
        classes = class_values(options.classes, predictor)
    missing: frozenset[str] = frozenset()
    if options.missing:
        missing = predictor.image_loader.missing_channels(options.missing)
    return Request(
        options,
        kinds,
        formats,
        automatic,
        settings,
        reference,
        least,
        classes,
        missing,
        columns,
    )


def _settings(
    options: PredictOptions, predictor: Predictor, reference: Reference | None
) -> EverythingSettings | None:
    """Return how objects are found without prompts; None if none are."""
    from simmat.predictor import EverythingSettings

    if not options.everything and reference is None:
        return None
    settings = EverythingSettings()
    if options.min_area is not None:
        settings = replace(settings, min_area=options.min_area)
    if isinstance(options.min_score, float):
        raw = _raw_score(options.min_score, predictor, reference)
        settings = replace(settings, min_score=raw, grid_score=raw)
    return settings


def _raw_score(
    least: float, predictor: Predictor, reference: Reference | None
) -> float:
    """Return the score before calibration from which on objects are searched, for the smallest score to keep."""
    from simmat.predictor import EverythingSettings

    if (
        predictor.calibration is None
        or predictor.calibration.object is None
        or reference is not None
    ):
        return least
    raw = predictor.calibration.object.inverse(least)
    # the calibration was measured with the default search
    return min(raw, EverythingSettings.min_score)


def _reference(options: PredictOptions, predictor: Predictor) -> Reference:
    """Encode the images that show what to find."""
    if len(predictor.adapter.sources) > 1:
        raise ConfigError(
            f"--reference is one file, but modality {predictor.adapter.name!r} has several; in Python, "
            "Predictor.reference takes {source: file}"
        )
    shown = list(zip(options.reference, options.reference_mask, strict=True))
    return predictor.reference(
        shown, classes=options.classes or (), missing=options.missing, tile=options.tile
    )


def _kinds(options: PredictOptions, registry: Registry) -> tuple[ResultKind, ...]:
    """Return what is found in each image."""
    if options.semantic and options.everything:
        return ("objects", "classes")
    if options.semantic:
        return ("classes",)
    if options.is_promptless or options.is_map_file:
        return ("objects",)
    return kinds_of_prompts(options.formats, registry)


def _formats(
    options: PredictOptions, kinds: tuple[ResultKind, ...], registry: Registry
) -> tuple[tuple[ResultFormat, ...], tuple[ResultFormat, ...]]:
    """Return the formats of the files to write, see `choose_formats`."""
    names = options.formats or (AUTO,)
    if options.uncertainty:
        names = (*names, UNCERTAINTY)
    if options.measure:
        names = (*names, TABLE)
    of_prompts = not options.is_promptless and options.formats is None
    return choose_formats(names, kinds, registry, of_prompts=of_prompts)


def class_values(wanted: Sequence[str], predictor: Predictor) -> frozenset[int]:
    """Return the label values of classes given by name or number."""
    values: list[int] = []
    if predictor.dense is not None:
        values = [value for value in predictor.dense.classes if value is not None]
    by_name = {predictor.class_names.get(value, str(value)): value for value in values}
    known = {str(value): value for value in values} | by_name
    for one in wanted:
        if one not in known:
            hint = "" if by_name else "This model has no classes."
            raise unknown_name("class of --classes", one, by_name, hint=hint)
    return frozenset(known[one] for one in wanted)


def files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return source, path, sizes and times of the files that are read; missing ones are reported when they are read."""
    key: list[Any] = []
    for source, file in files.items():
        known: list[Any] = []
        with suppress(OSError):
            first, *others = file_states(str(file))
            known += [first.size, first.mtime_ns]
            for one in others:
                known += [one.name, one.size, one.mtime_ns]
        key.append([source, str(file.absolute()), *known])
    return key


def request_digest(*values: object) -> str:
    """Return the sha256 of a request given as json values."""
    return hashlib.sha256(json.dumps([RECORD_FORMAT, *values]).encode()).hexdigest()


AUTO = "auto"
"""Stands for the formats that suit an image."""
UNCERTAINTY = "uncertainty"
"""The format for which the uncertainty of masks is computed."""
TABLE = "csv"
"""The format of the table of measured objects."""


def kinds_of_prompts(
    names: Collection[str] | None, registry: Registry
) -> tuple[ResultKind, ...]:
    """Return what formats hold of prompted objects: each object separately, or all objects of an image.

    Args:
        names: what `--format` lists; None writes the files of each object.
        registry: has the formats.
    """
    if names is None:
        return ("prompts",)
    for one in registry.all("result format"):
        if one.name in names and "prompts" in one.kinds and "objects" not in one.kinds:
            return ("prompts",)
    return ("objects",)


def choose_formats(
    names: Collection[str],
    kinds: Collection[ResultKind],
    registry: Registry,
    *,
    of_prompts: bool = False,
) -> tuple[tuple[ResultFormat, ...], tuple[ResultFormat, ...]]:
    """Find formats by name; "auto" stands for those that suit each image.

    Args:
        names: what `--format` lists.
        kinds: what is looked for in the images.
        registry: has the formats.
        of_prompts: "auto" stands for formats with the pixels of prompted objects: formats of prompts, and of class
            maps.

    Returns:
        The formats that are named, and those that "auto" may stand for; none if it is not named.

    Raises:
        ConfigError: a format can hold nothing of what is looked for.
        UnknownNameError: no installed package brings a format.
    """
    every: list[ResultFormat] = registry.all("result format")
    named = []
    for name in sorted(set(names) - {AUTO}):
        one: ResultFormat = registry.get("result format", name)
        if not can_hold_kinds(one, kinds):
            others = [other.name for other in every if can_hold_kinds(other, kinds)]
            raise ConfigError(
                f"format {name} holds {' and '.join(one.kinds)}, not {' and '.join(kinds)}; use {', '.join(others)}"
            )
        named.append(one)
    automatic = []
    if AUTO in names:
        for one in every:
            shows_pixels = any(
                place.endswith(("prompts", "classes")) for place in one.auto
            )
            if one.auto and (
                shows_pixels if of_prompts else can_hold_kinds(one, kinds)
            ):
                automatic.append(one)
    return in_order(named), in_order(automatic)


def in_order(formats: Iterable[ResultFormat]) -> tuple[ResultFormat, ...]:
    """Sort by name, formats that need a georeference last: their file replaces one of the same name."""
    return tuple(sorted(formats, key=lambda one: (one.needs_georeference, one.name)))


def can_hold_kinds(one: ResultFormat, kinds: Collection[ResultKind]) -> bool:
    """Return whether a format can hold one of these kinds of results."""
    return not set(kinds).isdisjoint(one.kinds)


def check_image(one: ResultFormat, image: ImageReader) -> None:
    """Raise DataError if a format cannot hold an image."""
    if one.needs_georeference and image.georeference is None:
        raise DataError(
            f"{image.origin}: has no coordinate reference system, which format {one.name} needs; use --format labels, "
            "or give the image a georeference (gdal_edit)"
        )
    if one.check:
        import_from_string(one.check)(image)


def can_hold(one: ResultFormat, image: ImageReader) -> bool:
    """Return whether a format can hold an image of this size and place."""
    try:
        check_image(one, image)
    except DataError:
        return False
    return True

"""What is asked of each image of a call: the options that the user gives, and the request that they become for a model.

`PredictOptions` are the options of `simmat predict` and `simmat.predict`. `resolve` turns them into a `Request` once,
before any image is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field

from simmat.calibration import MAX_ERROR_RATE, min_score
from simmat.documents import StrictModel
from simmat.errors import ConfigError, DataError, unknown_name
from simmat.geo import geo_backend
from simmat.io.states import file_states
from simmat.plugin_specs import ResultFormat, ResultKind
from simmat.plugins.registry import import_from_string
from simmat.sensors.channel_selection import parse_channels
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry
    from simmat.predictor import EverythingSettings, Predictor, Reference
    from simmat.types import ImageReader

LOCAL = "local"
AUTO = "auto"
"""Stands for the formats that suit an image."""
UNCERTAINTY = "uncertainty"
"""The format for which the uncertainty of masks is computed."""
TABLE = "csv"
"""The format of the table of measured objects."""
MAP_ENDINGS = (".geojson", ".gpkg", ".shp", ".fgb")
"""Endings of prompts files in map coordinates."""
RECORD_FORMAT = 1
"""Format number of the json of an image or object; increased when an older reader would misread a change."""
POINT = "X,Y"
"""How a point is written."""
BOX = "X0,Y0,X1,Y1"
"""How a box is written."""


def parse_numbers(text: str, form: str) -> tuple[float, ...]:
    """Parse "10,20", which is written as `form`; raise ValueError for anything else."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != form.count(",") + 1 or not np.isfinite(values).all():
        raise ValueError(f"must be {form}, with commas and without spaces")
    return values


def make_prompt(
    points: Sequence[Sequence[float]],
    negative: Sequence[Sequence[float]],
    box: Sequence[float] | None,
    prefix: str = "",
) -> Prompt:
    """Return the prompt of points (x, y) on and off an object and its box; `prefix` comes before names in messages."""
    if not points and box is None:
        raise ConfigError(
            f"no point on an object and no box; give {prefix}point {POINT} or {prefix}box {BOX}"
        )
    # the check against the image bounds refuses infinity
    with np.errstate(over="ignore"):
        coords = np.asarray([*points, *negative], np.float32).reshape(-1, 2)
        corners = None if box is None else np.asarray(box, np.float32)
    return Prompt(
        coords, np.asarray([1] * len(points) + [0] * len(negative), np.int64), corners
    )


def prompt_values(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as json values."""
    return {
        "point_coords_xy": prompt.point_coords.tolist(),
        "point_labels": prompt.point_labels.tolist(),
        "box_xyxy": None if prompt.box is None else prompt.box.tolist(),
    }


def _split(value: Any) -> Any:
    """Return the names in one or more lists with commas; a number is the name of a class, too."""
    if isinstance(value, str):
        names = (part.strip() for part in value.split(","))
        return tuple(name for name in names if name)
    if not isinstance(value, list | tuple):
        return value
    found: list[Any] = []
    for one in value:
        if isinstance(one, str):
            found += _split(one)
        elif isinstance(one, int):
            found.append(str(one))
        else:
            found.append(one)
    return tuple(found)


def _numbers(form: str) -> BeforeValidator:
    return BeforeValidator(
        lambda value: parse_numbers(value, form) if isinstance(value, str) else value
    )


def _channels(value: Any) -> Any:
    if isinstance(value, str):
        return parse_channels(value)
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Channels = Annotated[tuple[str | int, ...], BeforeValidator(_channels)]
Point = Annotated[tuple[float, float], _numbers(POINT)]
Box = Annotated[tuple[float, float, float, float], _numbers(BOX)]


def _option(
    default: Any,
    description: str,
    metavar: str = "",
    flag: str = "",
    *,
    repeat: bool = False,
    **limits: Any,
) -> Any:
    """Return a field with what the command line needs of it."""
    return Field(
        default,
        description=description,
        json_schema_extra={"metavar": metavar, "flag": flag, "repeat": repeat},
        **limits,
    )


def _flag(name: str) -> str:
    """Return the option of the command line that gives a field."""
    extra = PredictOptions.model_fields[name].json_schema_extra
    flag = str(extra["flag"]) if isinstance(extra, dict) else ""
    return flag.partition(" ")[0] or "--" + name.replace("_", "-")


_FOR_PROMPTS = ("points", "negative", "box", "prompts", "crs", "uncertainty", "cache")
_FOR_SEARCH = (
    "classes",
    "min_score",
    "max_error_rate",
    "min_area",
    "overlap",
    "mosaic",
)


class PredictOptions(StrictModel):
    """What to do with each image; the descriptions are the help of the command line.

    Texts are taken as the command line takes them: "10,20" for a point, "coco,overlay" for names.
    """

    model_config = ConfigDict(strict=False)
    former_keys: ClassVar = {"max_wrong": "max_error_rate"}

    missing: Channels = _option(
        (),
        "Channels this image lacks, by name, index or wavelength; for bundles of --mat channel-attention.",
        "LIST",
    )
    points: tuple[Point, ...] = _option(
        (), "Pixel on the object; repeatable.", POINT, "--point"
    )
    negative: tuple[Point, ...] = _option(
        (), "Pixel not on the object; repeatable.", POINT
    )
    box: Box | None = _option(None, "Box around the object, in pixels.", BOX)
    prompts: Path | None = _option(
        None,
        "Prompts for many objects: CSV (file,object,point,negative,box), COCO json (its boxes), or points and polygons "
        "of a GeoJSON, GeoPackage or shapefile.",
        "FILE",
    )
    crs: str | None = _option(
        None,
        "Coordinate system of --point, --box and the prompts file, such as EPSG:4326; by default pixels.",
        "CRS",
    )
    mask: Literal["single", "best"] = _option(
        "single",
        "The model's single mask, or the alternative with the highest predicted IoU.",
    )
    uncertainty: bool = _option(
        False,
        "Also write how much the mask differs between five views of the image (flips, shifts); takes five times "
        "as long.",
    )
    measure: bool = _option(
        False,
        "Measure each object: statistics of each channel in the sensor's unit, contrast to its surroundings, area and "
        "shape; as objects.csv, and in json, coco, gpkg and geojson.",
    )
    pixel_size_um: float | None = _option(
        None,
        "Side of a pixel in µm, for measured areas in µm²; by default as the file states it.",
        gt=0,
    )
    everything: bool = _option(False, "Find every object, without prompts.")
    reference: tuple[Path, ...] = _option(
        (),
        "Image that shows what to find, instead of every object; repeatable.",
        "FILE",
    )
    reference_mask: tuple[Path, ...] = _option(
        (),
        "The mask of a --reference: label values, 0 for background; one for each --reference, in the same order.",
        "FILE",
    )
    semantic: bool = _option(False, "Find the class of every pixel.")
    formats: Names | None = _option(
        None,
        "Files to write, such as labels,coco; `simmat plugins list` shows all. auto is the default of "
        "--everything and --semantic: labels,coco,overlay, or for georeferenced images geotiff,gpkg,coco,overlay.",
        "LIST",
        "--format",
    )
    classes: Names | None = _option(
        None,
        "Keep only these classes, by name or number; with --reference, values of its mask. Repeatable.",
        "LIST",
        "--classes --class",
        repeat=True,
    )
    min_score: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = _option(
        None,
        "Smallest score of an object; auto keeps what --max-error-rate allows.",
        "NUMBER|auto",
    )
    max_error_rate: float | None = _option(
        None,
        f"With --min-score auto: share of the objects that may be wrong (IoU below 0.5).  [default: {MAX_ERROR_RATE}]",
        "",
        "--max-error-rate --max-wrong",  # and its former name
        gt=0,
        le=0.5,
    )
    min_area: int | None = _option(None, "Smallest object in pixels.", ge=1)
    tile: int | None = _option(
        None, "Cut images into windows of this side in pixels.", ge=32
    )
    overlap: int | None = _option(None, "Overlap of windows in pixels.", ge=0)
    mosaic: bool = _option(
        False, "The files are tiles of one map: find objects across their borders."
    )
    executor: str = _option(
        LOCAL,
        "Where images are segmented: here, or on the workers of a dask scheduler that see the same files.",
        "local|tcp://HOST:PORT",
    )
    cache: Path | None = _option(
        None,
        "Keep embeddings in this folder, so that later prompts on the same image need no encoding.",
        "DIR",
    )

    @property
    def is_promptless(self) -> bool:
        """True if objects or classes are found without prompts."""
        return (
            self.everything
            or self.semantic
            or bool(self.reference or self.reference_mask)
        )

    @property
    def is_map_file(self) -> bool:
        """True if the prompts file has points and polygons in map coordinates."""
        return self.prompts is not None and self.prompts.suffix.lower() in MAP_ENDINGS

    def prompt(self) -> Prompt:
        """Return the prompt that points and box are, in pixels."""
        return make_prompt(self.points, self.negative, self.box, "--")

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself."""
        given = [_flag(name) for name in self._of_other_kind() if getattr(self, name)]
        names = ", ".join(given)
        if given and self.is_promptless:
            yield f"{names}: --everything, --semantic and --reference take no prompt; leave it out"
        elif given:
            yield f"{names}: works only with --everything, --semantic or --reference; add one of them, or leave it out"
        if self.max_error_rate is not None and self.min_score != "auto":
            yield "--max-error-rate is for --min-score auto; give both, or leave it out"
        if self.pixel_size_um is not None and not self.measure:
            yield "--pixel-size-um is for --measure; give both, or leave it out"
        if self.measure and self.semantic and not self.everything:
            yield "--measure measures objects, which --semantic does not find; add --everything, or leave it out"
        yield from self._reference_problems()
        if not self.is_promptless:
            yield from self._prompt_problems()

    def _of_other_kind(self) -> tuple[str, ...]:
        if self.is_promptless:
            return _FOR_PROMPTS
        return _FOR_SEARCH

    def _reference_problems(self) -> Iterator[str]:
        if len(self.reference) != len(self.reference_mask):
            yield (
                f"{len(self.reference)} --reference and {len(self.reference_mask)} --reference-mask: give one "
                "mask for each image, in the same order"
            )
        if self.reference and self.semantic:
            yield "--reference finds objects; leave --semantic out, or use a separate command"
        if self.reference and self.min_score == "auto":
            yield (
                "--min-score auto does not work with --reference, whose scores are not calibrated; give a "
                "number, or leave it out"
            )

    def _prompt_problems(self) -> Iterator[str]:
        if self.uncertainty and (self.formats is not None or self.is_map_file):
            yield (
                "--uncertainty writes a map beside the mask of each object; leave --format out, and give the "
                "prompts as CSV"
            )
        if self.prompts is None:
            try:
                self.prompt()
            except ConfigError as error:
                yield str(error)
        elif self.points or self.negative or self.box is not None:
            yield "--prompts gives the prompts of each image; leave --point, --negative and --box out"
        elif self.crs is not None and not self.is_map_file:
            yield f"--crs is for --point, --box and for prompts files {', '.join(MAP_ENDINGS)}"
        if self.crs is not None or self.is_map_file:
            geo_backend("a prompt in map coordinates")


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
        input_warning: how the first images differ from the training images; "" if they do not.
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
    input_warning: str = ""

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
        return tuple(one for one in every if one.one_file and _holds(one, self.kinds))

    def formats_for_image(
        self, kind: ResultKind, image: ImageReader
    ) -> tuple[ResultFormat, ...]:
        """Return the formats of an image's files in the order in which they are written.

        Raises:
            DataError: a format that the user named cannot hold an image of this size or place.
        """
        chosen = [one for one in self.formats if kind in one.kinds]
        for one in chosen:
            _check_image(one, image)
        places: set[str] = {kind}
        if image.georeference is not None:
            places.add(f"georeferenced {kind}")
        automatic = [
            one
            for one in self.automatic
            if not places.isdisjoint(one.auto) and _can_hold(one, image)
        ]
        replaced = {one.replaces for one in automatic}
        for one in automatic:
            if one.name not in replaced and one not in chosen:
                chosen.append(one)
        return tuple(one for one in _in_order(chosen) if not one.one_file)

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
    note: Callable[[str], object],
) -> Request:
    """Return what the options ask of a model.

    Args:
        options: what the user gives.
        predictor: the model.
        registry: has the formats.
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
        options, kinds, formats, automatic, settings, reference, least, classes, missing
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
        if not _holds(one, kinds):
            others = [other.name for other in every if _holds(other, kinds)]
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
            if one.auto and (shows_pixels if of_prompts else _holds(one, kinds)):
                automatic.append(one)
    return _in_order(named), _in_order(automatic)


def _in_order(formats: Iterable[ResultFormat]) -> tuple[ResultFormat, ...]:
    """Sort by name, formats that need a georeference last: their file replaces one of the same name."""
    return tuple(sorted(formats, key=lambda one: (one.needs_georeference, one.name)))


def _holds(one: ResultFormat, kinds: Collection[ResultKind]) -> bool:
    """Return whether a format can hold one of these kinds of results."""
    return not set(kinds).isdisjoint(one.kinds)


def _check_image(one: ResultFormat, image: ImageReader) -> None:
    """Raise DataError if a format cannot hold an image."""
    if one.needs_georeference and image.georeference is None:
        raise DataError(
            f"{image.origin}: has no coordinate reference system, which format {one.name} needs; use --format labels, "
            "or give the image a georeference (gdal_edit)"
        )
    if one.check:
        import_from_string(one.check)(image)


def _can_hold(one: ResultFormat, image: ImageReader) -> bool:
    try:
        _check_image(one, image)
    except DataError:
        return False
    return True


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

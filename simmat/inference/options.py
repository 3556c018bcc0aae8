"""The options of `simmat predict` and `simmat.predict`, and how points, boxes and lists are written in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field

from simmat.calibration import MAX_ERROR_RATE
from simmat.documents import StrictModel
from simmat.errors import ConfigError
from simmat.geo import geo_backend
from simmat.measurement import measurer
from simmat.sensors.channel_selection import parse_channels
from simmat.types import Prompt

LOCAL = "local"
MAP_ENDINGS = (".geojson", ".gpkg", ".shp", ".fgb")
"""Endings of prompts files in map coordinates."""
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
        "--max-error-rate",
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
        if self.measure:
            measurer()
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

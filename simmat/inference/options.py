"""What `simmat predict` and `simmat.predict` can be asked to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from simmat.calibration import MAX_WRONG
from simmat.documents import StrictModel
from simmat.errors import ConfigError
from simmat.geo import geo_backend
from simmat.inference.prompts import BOX, POINT, make_prompt, parse_numbers
from simmat.plugin_specs import ResultKind
from simmat.sensors.channel_selection import parse_channels
from simmat.types import Prompt

LOCAL = "local"
MAP_ENDINGS = (".geojson", ".gpkg", ".shp", ".fgb")
"""Endings of prompts files in map coordinates."""


def _split(value: Any) -> Any:
    """Return the names in one or more lists with commas; a number is the name of a class, too."""
    if isinstance(value, str):
        return tuple(filter(None, map(str.strip, value.split(","))))
    if isinstance(value, list | tuple):
        every = (_split(one) if isinstance(one, str) else (str(one) if isinstance(one, int) else one,) for one in value)
        return tuple(one for part in every for one in part)
    return value


def _numbers(form: str) -> BeforeValidator:
    return BeforeValidator(lambda value: parse_numbers(value, form) if isinstance(value, str) else value)


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Channels = Annotated[
    tuple[str | int, ...], BeforeValidator(lambda value: parse_channels(value) if isinstance(value, str) else value)
]
Point = Annotated[tuple[float, float], _numbers(POINT)]
Box = Annotated[tuple[float, float, float, float], _numbers(BOX)]


def _option(
    default: Any, description: str, metavar: str = "", flag: str = "", *, repeat: bool = False, **limits: Any
) -> Any:
    """Return a field with what the command line needs of it."""
    return Field(
        default,
        description=description,
        json_schema_extra={"metavar": metavar, "flag": flag, "repeat": repeat},
        **limits,
    )


def _flag(name: str) -> str:
    extra = PredictOptions.model_fields[name].json_schema_extra
    return (isinstance(extra, dict) and str(extra["flag"]).partition(" ")[0]) or "--" + name.replace("_", "-")


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
    points: tuple[Point, ...] = _option((), "Pixel on the object; repeatable.", POINT, "--point")
    negative: tuple[Point, ...] = _option((), "Pixel not on the object; repeatable.", POINT)
    box: Box | None = _option(None, "Box around the object, in pixels.", BOX)
    prompts: Path | None = _option(
        None,
        "Prompts for many objects: CSV (file,object,point,negative,box), COCO json (its boxes), or points and polygons "
        "of a GeoJSON, GeoPackage or shapefile.",
        "FILE",
    )
    crs: str | None = _option(
        None, "--point, --box and the prompts file are in map coordinates, such as EPSG:4326.", "CRS"
    )
    mask: Literal["single", "best"] = _option(
        "single", "The model's single mask, or the alternative with the highest predicted IoU."
    )
    uncertainty: bool = _option(
        False,
        "Also write how much the mask differs between five views of the image (flips, shifts); as slow as five images.",
    )
    everything: bool = _option(False, "Find every object, without prompts.")
    reference: tuple[Path, ...] = _option(
        (), "Image that shows what to find, instead of every object; repeatable.", "FILE"
    )
    reference_mask: tuple[Path, ...] = _option(
        (), "Its mask, of label values with 0 for background; one for each --reference, in their order.", "FILE"
    )
    semantic: bool = _option(False, "Find the class of every pixel.")
    formats: Names | None = _option(
        None,
        "Files to write, as labels,coco (simmat plugins list has them all), or auto, the default of --everything "
        "and --semantic: labels,coco,overlay, and of images with a place on a map geotiff and gpkg instead of labels.",
        "LIST",
        "--format",
    )
    classes: Names | None = _option(
        None,
        "Keep these classes only, by name or number; with --reference values of its mask. Repeatable.",
        "LIST",
        "--classes --class",
        repeat=True,
    )
    min_score: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = _option(
        None, "Smallest score of an object; auto keeps what --max-wrong allows.", "NUMBER|auto"
    )
    max_wrong: float | None = _option(
        None, f"auto: share of the objects that may be wrong (IoU below 0.5).  [default: {MAX_WRONG}]", gt=0, le=0.5
    )
    min_area: int | None = _option(None, "Smallest object in pixels.", ge=1)
    tile: int | None = _option(None, "Cut images into windows of this side in pixels.", ge=32)
    overlap: int | None = _option(None, "Overlap of windows in pixels.", ge=0)
    mosaic: bool = _option(False, "The files are tiles of one map: find objects over their borders.")
    executor: str = _option(
        LOCAL,
        "Where images are segmented: here, or on the workers of a dask scheduler that see the same files.",
        "local|tcp://HOST:PORT",
    )
    cache: Path | None = _option(
        None, "Keep embeddings in this folder, so that later prompts on the same image need no encoder.", "DIR"
    )

    @property
    def searches(self) -> bool:
        """True if objects or classes are found without prompts."""
        return self.everything or self.semantic or bool(self.reference or self.reference_mask)

    @property
    def kinds(self) -> tuple[ResultKind, ...]:
        """What is looked for."""
        if not self.semantic:
            return ("objects",)
        return ("objects", "classes") if self.everything else ("classes",)

    @property
    def is_map_file(self) -> bool:
        """True if the prompts file has points and polygons in map coordinates."""
        return self.prompts is not None and self.prompts.suffix.lower() in MAP_ENDINGS

    def prompt(self) -> Prompt:
        """Return the prompt that points and box are, in pixels."""
        return make_prompt(self.points, self.negative, self.box, "--")

    def problems(self) -> Iterator[str]:
        """Yield what contradicts itself."""
        for_prompts = ("points", "negative", "box", "prompts", "crs", "uncertainty", "cache")
        for_search = ("classes", "min_score", "max_wrong", "min_area", "overlap", "mosaic")
        if wrong := [_flag(name) for name in (for_prompts if self.searches else for_search) if getattr(self, name)]:
            way = "which need no prompt; leave it out" if self.searches else "so add one of them, or leave it out"
            searches = f"{'not ' * self.searches}for --everything, --semantic and --reference"
            yield f"{', '.join(wrong)}: {searches}, {way}"
        if self.max_wrong is not None and self.min_score != "auto":
            yield "--max-wrong is for --min-score auto; give both, or leave it out"
        if len(self.reference) != len(self.reference_mask):
            yield (
                f"{len(self.reference)} --reference and {len(self.reference_mask)} --reference-mask: give each image "
                "that shows what to find, and after it its mask"
            )
        if self.reference and self.semantic:
            yield "--reference finds objects; leave --semantic out, or use a separate call"
        if self.reference and self.min_score == "auto":
            yield "--min-score auto is measured without a --reference; give a number, or leave it out"
        if self.searches:
            return
        if self.uncertainty and (self.formats is not None or self.is_map_file):
            yield "--uncertainty: writes a map beside the mask of each object; leave --format out, and give a CSV"
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

"""Data cards: `card.toml` states what the files of a data set mean."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from simmat.documents import StrictModel, parse, read_toml
from simmat.errors import ConfigError
from simmat.io.files import atomic_write_text
from simmat.sensors.options import CropSide, NodataField
from simmat.sensors.warp import Alignment, problems_of_alignments
from simmat.types import RegionRule, ZeroMeans

CARD_FILE = "card.toml"
FORMAT = 1

NO_REGIONS = """{where}: the data card does not define what a region is. Use one of
  --regions instances   every label value but 0 is one object, whatever its shape
  --regions classes     every label value but 0 is a class, and all its pixels are one region
  --regions components  every label value but 0 is a class, and each connected piece of it is a region
  --regions panoptic    every label value but 0 is one object, and value // 1000 is its class
or add to {card}:  regions = "instances\""""


class Intrinsics(StrictModel):
    """The camera of the images: focal lengths and principal point in pixels of the original image.

    The centre of the top-left pixel is (0, 0).
    """

    fx: float = Field(gt=0)
    fy: float = Field(gt=0)
    cx: float
    cy: float


class DataCard(StrictModel):
    """The meaning of the labels and values of a data set, from `card.toml` in its folder.

    Attributes:
        format: of this card; 1.
        regions: what a region is, see `simmat.data.instances`.
        min_region: smallest region in pixels of the original image; smaller ones are dropped and counted.
        min_region_share: the same as a fraction of the image's pixels, for rules stated at another image size, such as
            1000 px at 1024 x 1024; a region must reach both.
        nodata: number stored in the files, before any scale or filter, that means no measurement; a mapping source
            name -> number where the sources differ. Values that are not finite are always missing.
        ignore: label value without ground truth; its pixels are left out of loss and score.
        zero_means: meaning of label value 0: "background", no object; "none", a region like any other; "unlabelled",
            no region, but there may be objects that nobody marked.
        class_names: label value -> name.
        class_attribute: attribute that names the class of a polygon; None if polygons have no class.
        stack_axis: axis along which volumes are sliced, see `simmat.io.frames`.
        crop: side in pixels of the windows of a training, see `simmat.data.crops`; 0 for whole images, and None to
            choose by the sizes of objects and images.
        intrinsics: of the camera, if known.
        alignment: source -> where it lies on the pixel grid of another, if they share none.
        modality_options: options of the sensor that these files need.
        notes: for the reader.
        licence: of the data.
        source: where the data come from.
    """

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    regions: RegionRule
    min_region: int = Field(default=1, ge=1, lt=2**63)
    min_region_share: float = Field(default=0.0, ge=0, lt=1)
    nodata: NodataField | None = None
    ignore: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    zero_means: ZeroMeans = "background"
    class_names: dict[
        Annotated[int, Field(strict=False, ge=-(2**63), lt=2**63)], str
    ] = Field(default_factory=dict)
    class_attribute: str | None = Field(default=None, min_length=1)
    stack_axis: Literal["x", "y", "z"] = "z"
    crop: CropSide | None = None
    intrinsics: Intrinsics | None = None
    alignment: dict[str, Alignment] = Field(default_factory=dict)
    modality_options: dict[str, Any] = Field(default_factory=dict)
    notes: str = ""
    licence: str = ""
    source: str = ""

    @model_serializer(mode="wrap")
    def _without_empty_alignment(
        self, write: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Leave out `alignment` where there is none."""
        values: dict[str, Any] = write(self)
        if not self.alignment:
            values.pop("alignment", None)
        return values

    def problems(self) -> Iterator[str]:
        """Yield contradictions between alignments."""
        yield from problems_of_alignments(self.alignment)

    def smallest_px(self, size_hw: tuple[int, int]) -> int:
        """Return the smallest number of pixels of a region in an (H, W) image."""
        return max(
            self.min_region, math.ceil(self.min_region_share * size_hw[0] * size_hw[1])
        )

    @property
    def smallest(self) -> str:
        """The smallest region as text: "30 px", "0.0954 % of the image"."""
        share = f"{100 * self.min_region_share:.3g} % of the image"
        if not self.min_region_share:
            return f"{self.min_region} px"
        if self.min_region == 1:
            return share
        return f"{self.min_region} px and {share}"


def load_card(
    root: Path,
    overrides: Mapping[str, object],
    *,
    defaults: Mapping[str, object] | None = None,
) -> DataCard:
    """Read `root/card.toml`, if it exists; `overrides` replace its fields, `defaults` fill those it leaves out.

    Raises:
        ConfigError: unknown keys, invalid values or no region rule; all at once.
    """
    path = root / CARD_FILE
    stated = {}
    if os.path.lexists(path):
        stated = read_toml(path, "data card")
    return make_card(merge(merge(defaults or {}, stated), overrides), where=str(root))


def card_of_files(folder: Path) -> DataCard:
    """Read the card of a data set that states what other files of its sensor mean.

    Raises:
        ConfigError: there is none, or it is invalid.
    """
    if not (folder / CARD_FILE).is_file():
        raise ConfigError(
            f"--data {folder}: has no {CARD_FILE} that could state what the files mean; leave --data out, or write "
            "one by `simmat data check DIR --write-card`"
        )
    return load_card(folder, {}, defaults={"regions": "instances"})


def merge(
    card: Mapping[str, object], overrides: Mapping[str, object]
) -> dict[str, object]:
    """Return the fields of a card, replaced by those of `overrides` that are not None.

    `min_region` and `min_region_share` are one rule: if `overrides` sets one of them, both are replaced.
    """
    given = {k: v for k, v in overrides.items() if v is not None}
    size_rule = {"min_region", "min_region_share"}
    replaced = set() if size_rule.isdisjoint(given) else size_rule
    return {key: value for key, value in card.items() if key not in replaced} | given


def make_card(values: Mapping[str, object], *, where: str) -> DataCard:
    """Make a card from plain values, see `load_card`."""
    if values.get("format", FORMAT) != FORMAT:
        raise ConfigError(
            f"{where}: the data card has format {values['format']}, expected {FORMAT}; for a newer one update SimMAT"
        )
    if "regions" not in values and values.keys() <= DataCard.model_fields.keys():
        raise ConfigError(NO_REGIONS.format(where=where, card=Path(where) / CARD_FILE))
    return parse(DataCard, values, f"{where}: the data card")


def write_card(root: Path, card: DataCard) -> Path:
    """Write `root/card.toml` and return its path; fields at their default are left out."""
    values = {}
    for key, value in card.model_dump(exclude_defaults=True).items():
        if value is not None:
            values[key] = value
    values["class_names"] = {
        str(label): name for label, name in card.class_names.items()
    }
    path = root / CARD_FILE
    tables = {
        key: value for key, value in values.items() if isinstance(value, dict) and value
    }
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    atomic_write_text(path, tomli_w.dumps({"format": card.format, **plain, **tables}))
    return path


def class_title(number: int, names: Mapping[int, str]) -> str:
    """Return a class number with its name, if it has one: "3 (boat)", "3"."""
    if names.get(number):
        return f"{number} ({names[number]})"
    return str(number)

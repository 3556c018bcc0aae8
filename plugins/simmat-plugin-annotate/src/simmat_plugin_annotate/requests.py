"""What the page may send: every body is one of these, and nothing else is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from simmat.documents import Document, as_tuples
from simmat_plugin_annotate.drafts import Overlap
from simmat_plugin_annotate.masks import MaskDocument
from simmat_plugin_annotate.state import MOST_CLASSES, Colour

MOST_POINTS = 256
MOST_EDITS = 512
Version = Annotated[int, Field(ge=0, lt=2**31)]
ObjectId = Annotated[int, Field(ge=1, lt=2**53)]
ClassId = Annotated[int, Field(ge=1, lt=2**31)]
Place = Annotated[float, Field(ge=-1, lt=2**31)]
Point = Annotated[tuple[Place, Place, Literal[0, 1]], BeforeValidator(as_tuples)]


class EncodeBody(Document):
    """The tab that shows the image, and whether it only may show it next."""

    tab: Annotated[str, Field(max_length=64)] = ""
    ahead: bool = False


class Nothing(Document):
    """An empty table."""


class PredictBody(Document):
    """A prompt: points as x, y and 1 on the object or 0 not on it, or a box as x0, y0, x1, y1."""

    points: Annotated[tuple[Point, ...], Field(max_length=MOST_POINTS), BeforeValidator(as_tuples)] = ()
    box: Annotated[tuple[Place, Place, Place, Place], BeforeValidator(as_tuples)] | None = None


class AddEdit(Document):
    """A new object."""

    op: Literal["add"]
    mask: MaskDocument
    class_id: ClassId | None = Field(None, alias="class")
    overlap: Overlap = "keep"


class ReplaceEdit(Document):
    """Other pixels for an object."""

    op: Literal["replace"]
    id: ObjectId
    mask: MaskDocument
    overlap: Overlap = "keep"


class ClassEdit(Document):
    """Another class for an object."""

    op: Literal["class"]
    id: ObjectId
    class_id: ClassId | None = Field(alias="class")


class RemoveEdit(Document):
    """An object goes."""

    op: Literal["remove"]
    id: ObjectId


Edit = Annotated[AddEdit | ReplaceEdit | ClassEdit | RemoveEdit, Field(discriminator="op")]


class EditsBody(Document):
    """One step: all edits or none."""

    version: Version
    edits: Annotated[tuple[Edit, ...], Field(min_length=1, max_length=MOST_EDITS), BeforeValidator(as_tuples)]


class VersionBody(Document):
    """The version that a step back or forth starts from."""

    version: Version


class DoneBody(Document):
    """Whether every object of the image is marked."""

    version: Version
    done: bool


class ClassItem(Document):
    """A class in the list; without an id it is new."""

    id: ClassId | None = None
    name: Annotated[str, Field(min_length=1, max_length=100)]
    colour: Colour | None = None


class ClassesBody(Document):
    """The whole list of classes."""

    classes: Annotated[tuple[ClassItem, ...], Field(max_length=MOST_CLASSES), BeforeValidator(as_tuples)]


class TrainBody(Document):
    """A run."""

    steps: Annotated[int, Field(ge=1, le=10**6)] | None = None


class NextBody(Document):
    """The image that is open now."""

    after: Annotated[str, Field(max_length=64)] | None = None

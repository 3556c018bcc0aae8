"""Bodies of requests from the page, as pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from simmat.config import MAX_IMAGE_SIZE
from simmat.documents import Document, as_tuples
from simmat.errors import DataError
from simmat_plugin_annotate.drafts import Overlap
from simmat_plugin_annotate.masks import MaskDocument
from simmat_plugin_annotate.state import MAX_CLASS_ID, MAX_CLASSES, Colour

MAX_POINTS = 256
MAX_EDITS = 512
Version = Annotated[int, Field(ge=0, lt=2**31)]
ObjectId = Annotated[int, Field(ge=1, lt=2**53)]
ClassId = Annotated[int, Field(ge=1, lt=MAX_CLASS_ID)]
Place = Annotated[float, Field(ge=-1, lt=2**31)]
Point = Annotated[tuple[Place, Place, Literal[0, 1]], BeforeValidator(as_tuples)]


class EncodeBody(Document):
    """The tab that shows the image, or with `ahead` may show it next."""

    tab: Annotated[str, Field(max_length=64)] = ""
    ahead: bool = False


class Nothing(Document):
    """An empty table."""


class PredictBody(Document):
    """A prompt: points (x, y, label) with label 1 on the object and 0 beside it, or a box (x0, y0, x1, y1)."""

    points: Annotated[tuple[Point, ...], Field(max_length=MAX_POINTS), BeforeValidator(as_tuples)] = ()
    box: Annotated[tuple[Place, Place, Place, Place], BeforeValidator(as_tuples)] | None = None


class AddEdit(Document):
    """Add an object."""

    op: Literal["add"]
    mask: MaskDocument
    class_id: ClassId | None = Field(None, alias="class")
    overlap: Overlap = "keep"


class ReplaceEdit(Document):
    """Replace the pixels of an object."""

    op: Literal["replace"]
    id: ObjectId
    mask: MaskDocument
    overlap: Overlap = "keep"


class ClassEdit(Document):
    """Change the class of an object."""

    op: Literal["class"]
    id: ObjectId
    class_id: ClassId | None = Field(alias="class")


class RemoveEdit(Document):
    """Remove an object."""

    op: Literal["remove"]
    id: ObjectId


Edit = Annotated[AddEdit | ReplaceEdit | ClassEdit | RemoveEdit, Field(discriminator="op")]


class EditsBody(Document):
    """Edits that form one step, all or none."""

    version: Version
    edits: Annotated[tuple[Edit, ...], Field(min_length=1, max_length=MAX_EDITS), BeforeValidator(as_tuples)]


class VersionBody(Document):
    """The version of the labels that an undo or redo starts from."""

    version: Version


class DoneBody(Document):
    """Mark an image as finished or not; without objects only if the user says that it is `empty`."""

    version: Version
    done: bool
    empty: bool = False


class ClassItem(Document):
    """A class in the list; a new class has no id."""

    id: ClassId | None = None
    name: Annotated[str, Field(min_length=1, max_length=100)]
    colour: Colour | None = None


class ClassesBody(Document):
    """The whole list of classes."""

    classes: Annotated[tuple[ClassItem, ...], Field(max_length=MAX_CLASSES), BeforeValidator(as_tuples)]


class TrainBody(Document):
    """Start a training run."""

    steps: Annotated[int, Field(ge=1, le=10**6)] | None = None
    image_size: Annotated[int, Field(ge=1, le=MAX_IMAGE_SIZE)] | None = None
    recipe: Literal["default", "paper", "continue"] = "default"

    def arguments(self, bundle: Path | None) -> list[str]:
        """Return the arguments of `simmat train` besides the steps; `bundle` is the model in use, None if untuned."""
        if self.recipe == "continue":
            if bundle is None:
                raise DataError("the model in use is not tuned yet, so nothing can be continued; take another recipe")
            return ["--init", str(bundle)]
        size = [] if self.image_size is None else ["--image-size", str(self.image_size)]
        return size + (["--mat", "mat", "--tune", "lora"] if self.recipe == "paper" else [])


class NextBody(Document):
    """Ask for the next image after the open one."""

    after: Annotated[str, Field(max_length=64)] | None = None

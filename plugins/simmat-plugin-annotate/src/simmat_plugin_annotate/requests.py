"""Contents of requests of the page: bodies as pydantic models, and numbers in addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field
from starlette.requests import Request

from simmat.config import MAX_IMAGE_SIZE
from simmat.documents import FromLists, StrictModel, as_tuples, parse
from simmat.errors import ConfigError, DataError, shortened
from simmat.io.reading import parse_json
from simmat_plugin_annotate.drafts import Overlap
from simmat_plugin_annotate.masks import MaskDocument
from simmat_plugin_annotate.planes import UnknownError
from simmat_plugin_annotate.state import MAX_CLASS_ID, MAX_CLASSES, Colour

_SMALL_BODY = 4096
"""Bytes of a body that is parsed in less time than another thread takes to start."""

Body = TypeVar("Body")
MAX_POINTS = 256
MAX_EDITS = 512
MAX_FOLLOWED = 10**6
Version = Annotated[int, Field(ge=0, lt=2**31)]
ObjectId = Annotated[int, Field(ge=1, lt=2**53)]
ClassId = Annotated[int, Field(ge=1, lt=MAX_CLASS_ID)]
Place = Annotated[float, Field(ge=-1, lt=2**31)]
Point = FromLists[tuple[Place, Place, Literal[0, 1]]]


class EncodeBody(StrictModel):
    """The tab that shows the image; with `ahead` it may be shown next."""

    tab: Annotated[str, Field(max_length=64)] = ""
    ahead: bool = False


class Nothing(StrictModel):
    """An empty table."""


class PredictBody(StrictModel):
    """A prompt: points (x, y, label) with label 1 on the object and 0 beside it, or a box (x0, y0, x1, y1)."""

    points: Annotated[
        tuple[Point, ...], Field(max_length=MAX_POINTS), BeforeValidator(as_tuples)
    ] = ()
    box: FromLists[tuple[Place, Place, Place, Place]] | None = None


class MeasureBody(StrictModel):
    """Measure some objects in one channel, given by its index."""

    channel: Annotated[int, Field(ge=0, lt=2**31)]
    ids: Annotated[
        tuple[ObjectId, ...], Field(max_length=MAX_EDITS), BeforeValidator(as_tuples)
    ]


class AddEdit(StrictModel):
    """Add an object; in a frame it may have the id of one in other frames; `predicted` if a model found it as it is."""

    op: Literal["add"]
    id: ObjectId | None = None
    mask: MaskDocument
    class_id: ClassId | None = Field(None, alias="class")
    overlap: Overlap = "keep"
    predicted: bool = False


class ReplaceEdit(StrictModel):
    """Replace the pixels of an object."""

    op: Literal["replace"]
    id: ObjectId
    mask: MaskDocument
    overlap: Overlap = "keep"
    predicted: bool = False


class ClassEdit(StrictModel):
    """Change the class of an object."""

    op: Literal["class"]
    id: ObjectId
    class_id: ClassId | None = Field(alias="class")


class RemoveEdit(StrictModel):
    """Remove an object."""

    op: Literal["remove"]
    id: ObjectId


class AcceptEdit(StrictModel):
    """Accept followed objects, and that lost ones are not in the image."""

    op: Literal["accept"]


class ConfirmEdit(StrictModel):
    """Take objects that a model found as if the user had drawn them; empty for all."""

    op: Literal["confirm"]
    ids: Annotated[
        tuple[ObjectId, ...], Field(max_length=MAX_EDITS), BeforeValidator(as_tuples)
    ] = ()


Edit = Annotated[
    AddEdit | ReplaceEdit | ClassEdit | RemoveEdit | AcceptEdit | ConfirmEdit,
    Field(discriminator="op"),
]


class EditsBody(StrictModel):
    """Edits that form one step, all or none."""

    version: Version
    edits: Annotated[
        tuple[Edit, ...],
        Field(min_length=1, max_length=MAX_EDITS),
        BeforeValidator(as_tuples),
    ]


class FollowBody(StrictModel):
    """Fill the next frames, or with a negative number those before, with some objects of a frame; empty for all."""

    frames: Annotated[int, Field(ge=-MAX_FOLLOWED, le=MAX_FOLLOWED)]
    objects: Annotated[
        tuple[ObjectId, ...], Field(max_length=MAX_EDITS), BeforeValidator(as_tuples)
    ] = ()


class AcceptBody(StrictModel):
    """Accept the followed frames of a sequence of at least a score."""

    score: Annotated[float, Field(ge=0, le=1)]


class VersionBody(StrictModel):
    """The version of the labels that an undo or redo starts from."""

    version: Version


class DoneBody(StrictModel):
    """Mark an image as finished or not; without objects only if the user says that it is `empty`."""

    version: Version
    done: bool
    empty: bool = False


class ClassItem(StrictModel):
    """A class in the list; a new class has no id."""

    id: ClassId | None = None
    name: Annotated[str, Field(min_length=1, max_length=100)]
    colour: Colour | None = None


class ClassesBody(StrictModel):
    """The whole list of classes."""

    classes: Annotated[
        tuple[ClassItem, ...], Field(max_length=MAX_CLASSES), BeforeValidator(as_tuples)
    ]


class TrainBody(StrictModel):
    """Start a training run."""

    steps: Annotated[int, Field(ge=1, le=10**6)] | None = None
    image_size: Annotated[int, Field(ge=1, le=MAX_IMAGE_SIZE)] | None = None
    recipe: Literal["default", "continue"] = "default"

    def arguments(self, bundle: Path | None) -> list[str]:
        """Return the arguments of `simmat train` besides the steps; `bundle` is the model in use, None if untuned."""
        if self.recipe == "continue":
            if bundle is None:
                raise DataError(
                    "the model in use is not tuned yet, so its training cannot be continued; choose another recipe"
                )
            return ["--init", str(bundle)]
        return [] if self.image_size is None else ["--image-size", str(self.image_size)]


class RightBody(StrictModel):
    """Say of a suspect of the last check that its label is right, or no longer that."""

    id: Annotated[str, Field(max_length=64)]
    right: bool


def number(text: str) -> int:
    """Parse a whole number in an address."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UnknownError("there is no such tile")
    return int(text)


def numbers(request: Request, name: str) -> list[int]:
    """Parse the whole numbers of a query field; empty if it is missing."""
    text = request.query_params.get(name, "")
    parts = text.split(",") if text else []
    if len(text) > 200 or not all(
        part.isascii() and part.isdigit() and len(part) < 10 for part in parts
    ):
        raise ConfigError(
            f"{name} must be whole numbers of at most 9 digits, separated by commas, got {shortened(repr(text))}"
        )
    return [int(part) for part in parts]


def box_of(request: Request) -> tuple[int, int, int, int] | None:
    """Parse the query field `box`: (x0, y0, x1, y1); None if it is missing."""
    if not (sides := numbers(request, "box")):
        return None
    if not (len(sides) == 4 and sides[0] < sides[2] and sides[1] < sides[3]):
        got = ",".join(map(str, sides))
        raise ConfigError(
            f"box must be x0,y0,x1,y1 with x0 < x1 and y0 < y1, got {shortened(got)}"
        )
    return sides[0], sides[1], sides[2], sides[3]


async def body_of(request: Request, model: type[Body]) -> Body:
    """Parse the body of a request; a large one in a thread, so that it does not delay other requests."""
    content = await request.body()

    def read() -> Body:
        try:
            values = parse_json(content)
        except ValueError as error:
            raise ConfigError(f"the body is not valid json: {error}") from None
        return parse(model, values, "the request")  # type: ignore[type-var]

    return read() if len(content) <= _SMALL_BODY else await asyncio.to_thread(read)

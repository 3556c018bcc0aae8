"""The classes of a folder, and what else is kept of it between sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from simmat.data.card import DataCard
from simmat.documents import Document, as_tuples, parse
from simmat.errors import DataError, SimMATError
from simmat.io.files import read_json

COLOURS = (
    *("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#ffffff"),
    *("#a6dcff", "#ffd58a", "#66d9b8", "#b8ad00", "#f2bcd7", "#ff9a57", "#66a9d9", "#b0b0b0"),
)
"""Of classes in their order, which people with colour-blindness tell apart: Okabe and Ito's, then lighter ones."""
MOST_CLASSES = 1000

Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
GivenClass = tuple[int | None, str, str | None]
"""Id, None for a new class; name; colour, None for one of `COLOURS`."""


class ObjectClass(Document):
    """A class of objects."""

    id: int = Field(ge=1, lt=2**31)
    name: str = Field(min_length=1, max_length=100)
    colour: Colour

    @classmethod
    def of(cls, number: int, name: str, place: int) -> ObjectClass:
        """Return a new class with the colour of its place in the list."""
        return cls(id=number, name=name.strip()[:100] or f"class {number}", colour=COLOURS[place % len(COLOURS)])


class FolderState(Document):
    """What is kept of a folder between sessions, beside masks and card.

    Attributes:
        format: of this file; 1.
        classes: in the order of their keys.
        highest: id that a class has or had: undone objects may still have the ids of classes that were removed.
        default: class of objects that were labelled before there were classes.
        panoptic: masks hold classes, whatever the card still says.
        bundle: the run whose bundle was better on validation, relative to the folder.
    """

    format: int = Field(1, ge=1, le=1)
    classes: Annotated[tuple[ObjectClass, ...], BeforeValidator(as_tuples)] = ()
    highest: int = Field(default=0, ge=0)
    default: int | None = None
    panoptic: bool = False
    bundle: str | None = None

    @classmethod
    def read(cls, path: Path) -> FolderState:
        """Read it; where there is none, nothing was kept yet."""
        if not path.exists():
            return cls(format=1)
        try:
            return parse(cls, read_json(path), str(path))
        except SimMATError as error:
            raise DataError(
                f"{error}. Remove this file; names and order of classes are then those of card.toml"
            ) from None

    def with_card(self, card: DataCard) -> FolderState:
        """Return it with the classes of a card whose masks hold classes, where it has none of its own."""
        if card.regions == "instances" or self.classes:
            return self
        named = {number: name for number, name in card.class_names.items() if number > 0 and number != card.ignore}
        listed = sorted(named.items()) or [(1, "object")]
        classes = [ObjectClass.of(number, name, place) for place, (number, name) in enumerate(listed)]
        return self.model_copy(update={"classes": tuple(classes), "default": classes[0].id})

    def with_seen(self, class_id: int, name: str) -> FolderState:
        """Return it with a class that a mask holds, and perhaps no list names."""
        if class_id in self.ids():
            return self
        return self.model_copy(update={"classes": (*self.classes, ObjectClass.of(class_id, name, len(self.classes)))})

    def with_classes(self, given: Sequence[GivenClass], hidden: int | None) -> FolderState:
        """Return it with another list of classes.

        Args:
            given: the classes in their order.
            hidden: value that no class gets.

        Raises:
            DataError: names are not unique, or an id is unknown or twice.
        """
        known = {one.id: one for one in self.classes}
        ids = [number for number, _, _ in given if number is not None]
        names = [name.strip() for _, name, _ in given]
        if unknown := [number for number in ids if number not in known]:
            raise DataError(f"there is no class {unknown[0]}; a new class has the id null")
        if len(set(ids)) < len(ids) or len(set(names)) < len(names) or not all(names):
            raise DataError("each class needs a name of its own, and each id may occur once")
        highest = max([self.highest, *known])
        result: list[ObjectClass] = []
        for place, ((number, _, colour), name) in enumerate(zip(given, names, strict=True)):
            if number is None:
                highest += 1 + (highest + 1 == hidden)
            made = ObjectClass.of(highest, name, place) if number is None else known[number]
            result.append(made.model_copy(update={"name": name, "colour": colour or made.colour}))
        left = [one.id for one in result]
        default = self.default if self.default in left else next(iter(left), None)
        return self.model_copy(update={"classes": tuple(result), "highest": highest, "default": default})

    def ids(self) -> list[int]:
        """Return the ids of its classes, in their order."""
        return [one.id for one in self.classes]

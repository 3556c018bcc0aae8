"""The files of a folder between sessions, the lock of the server, and the classes and other settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

from filelock import FileLock, Timeout
from pydantic import Field

from simmat.data.card import CARD_FILE, DataCard
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.data.predicted import PREDICTED_FILE
from simmat.documents import FromLists, StrictModel, parse
from simmat.drawing.overlay import class_colour
from simmat.errors import DataError, SimMATError
from simmat.io.files import output_error, require_inside
from simmat.io.paths import require_folder, with_home
from simmat.io.reading import read_json

MAX_CLASSES = 1000
MAX_CLASS_ID = 2**53
"""Above the largest number of a class, which is a value of the masks: json in a browser counts to it."""

Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
GivenClass = tuple[int | None, str, str | None]
"""Id, None for a new class; name; colour, None for that of `class_colour`."""


Stored = TypeVar("Stored", bound=StrictModel)


def read_stored(kind: type[Stored], path: Path, remedy: str) -> Stored:
    """Read a document of format 1 from its file; without a file return an empty one.

    Args:
        remedy: what happens without the file, for an error.

    Raises:
        DataError: it is damaged.
    """
    if not path.exists():
        return parse(kind, {"format": 1}, str(path))
    try:
        return parse(kind, read_json(path), str(path))
    except SimMATError as error:
        raise DataError(f"{error}. Remove this file; {remedy}") from None


class ObjectClass(StrictModel):
    """A class of objects."""

    id: int = Field(ge=1, lt=MAX_CLASS_ID)
    name: str = Field(min_length=1, max_length=100)
    colour: Colour

    @classmethod
    def of(cls, number: int, name: str) -> ObjectClass:
        """Return a new class with the colour that it has in all pictures."""
        colour = "#{:02x}{:02x}{:02x}".format(*class_colour(number))
        return cls(
            id=number, name=name.strip()[:100] or f"class {number}", colour=colour
        )


class FolderState(StrictModel):
    """State of a folder that is stored between sessions, besides masks and card.

    Attributes:
        format: format number of the file, 1.
        classes: the classes in the order of their shortcut keys.
        highest: highest id that any class has or had, since objects in the history may have ids of removed classes.
        default: class of objects that were labelled before there were classes.
        panoptic: True if masks contain classes, even if the card does not say so yet.
        bundle: the run with the best validation score so far, relative to the folder; None if there is none.
    """

    format: int = Field(1, ge=1, le=1)
    classes: FromLists[tuple[ObjectClass, ...]] = ()
    highest: int = Field(default=0, ge=0)
    default: int | None = None
    panoptic: bool = False
    bundle: str | None = None

    @classmethod
    def read(cls, path: Path) -> FolderState:
        """Read the file; without a file return an empty state."""
        remedy = "names and order of classes are then taken from card.toml"
        return read_stored(cls, path, remedy)

    def with_card(self, card: DataCard) -> FolderState:
        """Return a copy that has the classes of the card if it has none and the masks contain classes."""
        if card.regions == "instances" or self.classes:
            return self
        named = {
            number: name
            for number, name in card.class_names.items()
            if number > 0 and number != card.ignore
        }
        listed = sorted(named.items()) or [(1, "object")]
        classes = [ObjectClass.of(number, name) for number, name in listed]
        return self.model_copy(
            update={"classes": tuple(classes), "default": classes[0].id}
        )

    def with_seen(self, class_id: int, name: str) -> FolderState:
        """Return a copy that has a class found in a mask."""
        if class_id in self.ids():
            return self
        return self.model_copy(
            update={"classes": (*self.classes, ObjectClass.of(class_id, name))}
        )

    def with_classes(
        self, given: Sequence[GivenClass], hidden: int | None
    ) -> FolderState:
        """Return a copy with another list of classes.

        Args:
            hidden: mask value without ground truth, which no class gets as id.

        Raises:
            DataError: names or ids are not unique, or an id is unknown.
        """
        known = {one.id: one for one in self.classes}
        ids = [number for number, _, _ in given if number is not None]
        names = [name.strip() for _, name, _ in given]
        if unknown := [number for number in ids if number not in known]:
            raise DataError(
                f"there is no class {unknown[0]}; a new class must have the id null"
            )
        if len(set(ids)) < len(ids) or len(set(names)) < len(names) or not all(names):
            raise DataError(
                "each class needs a name of its own, and each id may occur once"
            )
        highest = max([self.highest, *known])
        result: list[ObjectClass] = []
        for (number, _, colour), name in zip(given, names, strict=True):
            if number is None:
                highest += 1 + (highest + 1 == hidden)
            object_class = (
                ObjectClass.of(highest, name) if number is None else known[number]
            )
            result.append(
                object_class.model_copy(
                    update={"name": name, "colour": colour or object_class.colour}
                )
            )
        remaining_ids = [one.id for one in result]
        default = (
            self.default
            if self.default in remaining_ids
            else next(iter(remaining_ids), None)
        )
        return self.model_copy(
            update={"classes": tuple(result), "highest": highest, "default": default}
        )

    def ids(self) -> list[int]:
        """Return the ids of the classes, in their order."""
        return [one.id for one in self.classes]


HOME = Path(".simmat") / "annotate"
JOURNAL = "journal"
STATE_FILE = "state.json"
LOCK_FILE = "lock"
SUSPECTS_FILE = "suspects.json"
RUNS = "runs"
CACHES = ("embeddings", "tiles")
MAX_CACHED = 8 * 2**30
"""Most bytes of each of the `CACHES` that stay for the next session."""


@contextmanager
def locked_folder(root: Path) -> Iterator[None]:
    """Lock a folder against other servers inside the block; read the folder only there.

    Raises:
        DataError: there is no such folder, another server uses it, or a link would lead written files out of it.
        OutputError: the folder cannot be written.
    """
    root = with_home(root).absolute()
    require_folder(root, f"give the folder that contains {IMAGES}/")
    home = root / HOME
    for folder, names in (
        (root, (MASKS, RUNS, CARD_FILE, MANIFEST_FILE, PREDICTED_FILE)),
        (home, (JOURNAL, STATE_FILE, LOCK_FILE, SUSPECTS_FILE, *CACHES)),
    ):
        for name in names:
            require_inside(root, folder / name, error=DataError)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{root} is being annotated by another `simmat annotate`; use its page, or stop it first"
        ) from None
    except OSError as error:
        raise output_error(error, home) from error
    try:
        yield
    finally:
        lock.release()


def trim_cache(cache: Path) -> None:
    """Remove links from a cache, and its oldest files if it is too large."""
    files = []
    for path in cache.rglob("*"):
        if path.is_symlink():  # writing to it would write to its target
            path.unlink(missing_ok=True)
        elif path.is_file():
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    size = sum(size for _, size, _ in files)
    for _, freed, path in sorted(files):
        if size <= MAX_CACHED:
            return
        path.unlink(missing_ok=True)
        size -= freed

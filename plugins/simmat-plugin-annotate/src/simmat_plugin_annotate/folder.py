"""The folder that is labelled: its images, its card, its classes, and the labels of each image."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from simmat.data.card import CARD_FILE, DataCard, load_card, write_card
from simmat.data.formats.coco import annotation_files
from simmat.data.formats.folders import IMAGES, MASKS, find_samples
from simmat.data.formats.manifest import MANIFEST_FILE, manifest_samples, set_manifest_mask
from simmat.data.samples import Sample, decide_splits
from simmat.documents import Document, as_tuples, parse
from simmat.errors import ConfigError, DataError, SimMATError
from simmat.io.files import atomic_write_json, read_json, remove_temporary, with_home
from simmat.io.files.locks import locked
from simmat.sensors.adapter import ModalityAdapter, fitted_to_card, options_of
from simmat_plugin_annotate.journal import Record, last_record
from simmat_plugin_annotate.labels import ImageLabels, Rule, sha256_of

FOLDER = Path(".simmat") / "annotate"
STATE_FILE = "state.json"
COLOURS = (
    *("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#ffffff"),
    *("#a6dcff", "#ffd58a", "#66d9b8", "#b8ad00", "#f2bcd7", "#ff9a57", "#66a9d9", "#b0b0b0"),
)
"""Of classes in their order: Okabe and Ito's, then lighter ones."""
MOST_CLASSES = 1000

_log = logging.getLogger(__name__)

Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]


class ObjectClass(Document):
    """A class of objects."""

    id: int = Field(ge=1, lt=2**31)
    name: str = Field(min_length=1, max_length=100)
    colour: Colour


class FolderState(Document):
    """What is kept of a folder between sessions, beside masks and card.

    Attributes:
        format: of this file; 1.
        classes: in the order of their keys.
        default: class of objects that were labelled before there were classes.
        panoptic: masks hold classes, whatever the card still says.
        bundle: the run whose bundle was better on validation, relative to the folder.
    """

    format: int = Field(1, ge=1, le=1)
    classes: Annotated[tuple[ObjectClass, ...], BeforeValidator(as_tuples)] = ()
    default: int | None = None
    panoptic: bool = False
    bundle: str | None = None


@dataclass(frozen=True)
class FolderImage:
    """One image of the folder.

    Attributes:
        key: stands for it in addresses.
        sample: its files.
    """

    key: str
    sample: Sample


class LabelFolder:
    """A folder of images and the labels that are made of them.

    Attributes:
        root: the folder.
        adapter: the sensor, with the options of the card.
        images: key -> image, in the order of their names.
        home: where journals, tiles and embeddings are kept.
    """

    def __init__(
        self, root: Path, adapter: ModalityAdapter, overrides: Mapping[str, object], size_of: Callable[[str], Any]
    ) -> None:
        """Open a folder.

        Args:
            root: the folder.
            adapter: the sensor.
            overrides: fields of the card from the command line.
            size_of: key of an image -> its (height, width); called when its labels are first looked at.

        Raises:
            DataError: it is no folder of images, or its labels are of a kind that cannot be edited.
            ConfigError: the card is wrong, or says nothing of masks that exist.
        """
        self.root = with_home(root).absolute()
        self.home = self.root / FOLDER
        self._size_of = size_of
        self._lock = threading.RLock()
        self._manifest_lock = threading.Lock()
        self._labels: dict[str, ImageLabels] = {}
        self._broken: dict[str, str] = {}
        self._noted: dict[str, Record] = {}
        self._card = self._read_card(overrides)
        self._overrides = overrides
        self._stored: DataCard | None = None
        if (self.root / CARD_FILE).exists():
            with suppress(ConfigError):  # it lacks what `overrides` says
                self._stored = self._read_card({})
        self.adapter = fitted_to_card(adapter, self._card.model_dump())
        self._has_manifest = (self.root / MANIFEST_FILE).exists()
        self.images = {image.key: image for image in self._find_images()}
        self._masks = {key: image.sample.mask for key, image in self.images.items()}
        self.state = self._read_state()
        if self._card.regions != "instances" and not self.state.classes:
            names = {number: name for number, name in self._card.class_names.items() if self._is_class(number)}
            names = names or {1: "object"}
            classes = [
                self._new_class(number, name, place) for place, (number, name) in enumerate(sorted(names.items()))
            ]
            self.state = self.state.model_copy(update={"classes": tuple(classes), "default": classes[0].id})

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other servers away from the folder, and first finish what a crash cut short.

        Raises:
            DataError: another one has it.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        with locked(self.home) as alone:
            if alone is False:
                raise DataError(
                    f"{self.root} is being annotated by another `simmat annotate`; use its page, or end it first"
                )
            self._recover()
            yield

    @property
    def card(self) -> DataCard:
        """The card as it is while classes are being added."""
        names = {number: name for number, name in self._card.class_names.items() if not self._is_class(number)}
        names |= {one.id: one.name for one in self.state.classes}
        rule = "panoptic" if self.state.panoptic else self._card.regions
        return self._card.model_copy(update={"regions": rule, "class_names": names or self._card.class_names})

    @property
    def rule(self) -> Rule:
        """What mask values mean."""
        return Rule(self.card, self.state.default if self.state.classes else None)

    @property
    def notice(self) -> str:
        """What a user should know of the folder before labelling; "" if nothing."""
        if self._broken:
            first, *rest = self._broken.values()
            more = f" ({len(rest)} more images in the terminal)" if rest else ""
            return f"cannot be edited: {first}{more}"
        if self._card.regions in ("components", "classes"):
            joined = "that touch" if self._card.regions == "components" else "of an image"
            return (
                f"By card.toml a mask value is a class (regions = {self._card.regions!r}): for training, objects of "
                f"one class {joined} are one region."
            )
        return ""

    def find(self, key: str) -> FolderImage:
        """Return an image.

        Raises:
            LookupError: there is none with this key.
        """
        return self.images[key]

    def mask_of(self, key: str) -> Path | None:
        """Return the mask file of an image; None if it has none."""
        return self._masks[key]

    def labels(self, key: str) -> ImageLabels:
        """Return the labels of an image; they are read when they are asked for first.

        Raises:
            LookupError: there is no such image.
            SimMATError: image or mask cannot be read, or the mask cannot be edited.
        """
        sample = self.images[key].sample
        if sample.has_polygons:
            raise DataError(
                f"{sample.mask}: the labels of this image are polygons, which the annotator does not edit; "
                "convert them to a label image first"
            )
        with self._lock:
            if key not in self._labels:
                size_hw = self._size_of(key)
                journal = self.home / "journal" / f"{key}.jsonl"
                place = self.root / MASKS / self._mask_name(sample)
                found = ImageLabels(
                    size_hw,
                    lambda: self.rule,
                    journal,
                    self._masks[key],
                    place,
                    lambda path: self._placed(key, path),
                )
                self._labels[key] = found
                for region in found.objects.values():
                    self.class_seen(found.class_of(region))
            return self._labels[key]

    def noted(self, key: str) -> Record | None:
        """Return the last step of an image of an earlier session whose labels were not read yet."""
        return None if key in self._labels else self._noted.get(key)

    def known_labels(self, key: str) -> ImageLabels | None:
        """Return the labels of an image if they were read already."""
        return self._labels.get(key)

    def unwritten(self) -> list[ImageLabels]:
        """Return the labels whose mask file is behind."""
        return [labels for labels in list(self._labels.values()) if labels.unwritten]

    def write_card(self) -> None:
        """Write `card.toml` where it says less than what is labelled needs, such as before the first mask.

        Raises:
            OutputError: it cannot be written.
        """
        with self._lock:
            options = {**self._card.modality_options, **options_of(self.adapter)}
            card = self.card.model_copy(update={"modality_options": options})
            if card != self._stored:
                mine = {name: getattr(card, name) for name in ("regions", "class_names", "modality_options")}
                write_card(
                    self.root, self._read_card(self._overrides).model_copy(update=mine)
                )  # keeps what others wrote
                self._card = self._stored = card

    def set_classes(self, classes: Sequence[tuple[int | None, str, str | None]]) -> None:
        """Replace the list of classes; with the first class, masks begin to hold classes.

        Args:
            classes: (id or None for a new one, name, colour or None) in their order.

        Raises:
            DataError: names are not unique, an id is unknown or twice, or a class that is left out has objects.
            OutputError: masks or card cannot be written.
        """
        with self._lock:
            known = {one.id: one for one in self.state.classes}
            given = [number for number, _, _ in classes if number is not None]
            names = [name.strip() for _, name, _ in classes]
            if unknown := [number for number in given if number not in known]:
                raise DataError(f"there is no class {unknown[0]}; a new class has the id null")
            if len(set(given)) < len(given) or len(set(names)) < len(names) or not all(names):
                raise DataError("each class needs a name of its own, and each id may occur once")
            left_out = known.keys() - set(given)
            for number in sorted(left_out):
                if self._uses(number):
                    raise DataError(
                        f"class {known[number].name!r} has objects, so it cannot be removed; change their class first"
                    )
            highest = max([0, *known])
            result: list[ObjectClass] = []
            for place, ((given_id, _, colour), name) in enumerate(zip(classes, names, strict=True)):
                if given_id is None:
                    highest += 1 + (highest + 1 == self._card.ignore)
                made = self._new_class(highest, name, place) if given_id is None else known[given_id]
                result.append(made.model_copy(update={"name": name, "colour": colour or made.colour}))
            update: dict[str, Any] = {"classes": tuple(result)}
            if self.state.default is None or self.state.default not in [one.id for one in result]:
                update["default"] = result[0].id if result else None
            if not result and self.card.regions != "instances":
                raise DataError("the masks of this folder hold classes, so at least one is needed; rename it instead")
            if not self.state.classes and result and self._card.regions == "instances":
                update["panoptic"] = True
                self._prepare_classes(result[0].id)
            self._write_state(**update)
            self._to_rule()
            self.write_card()

    def _prepare_classes(self, default: int) -> None:
        """Make sure that every mask can hold classes, and that its objects are known without it.

        Raises:
            SimMATError: an image cannot be read, or has too many objects; no mask has changed then.
        """
        editable = [self.labels(key) for key in self._editable()]  # while their values are still only ids
        rule = Rule(self._card.model_copy(update={"regions": "panoptic"}), default)
        for labels in editable:
            try:
                labels.check(rule)
            except DataError as error:
                raise DataError(f"{labels.mask}: {error}") from None
        for labels in editable:
            labels.keep_base()

    def keep_bundle(self, bundle: str | None) -> None:
        """Note the run whose bundle the next session starts with.

        Raises:
            OutputError: it cannot be written.
        """
        with self._lock:
            self._write_state(bundle=bundle)

    def class_seen(self, class_id: int | None) -> None:
        """Add a class that a mask holds and no list names."""
        with self._lock:
            if class_id is not None and class_id not in [one.id for one in self.state.classes]:
                name = self._card.class_names.get(class_id, f"class {class_id}")
                made = self._new_class(class_id, name, len(self.state.classes))
                self.state = self.state.model_copy(update={"classes": (*self.state.classes, made)})

    def splits(self) -> dict[str, str]:
        """Return the split of each labelled image, by its name; an image without one has none yet."""
        masked = [
            image.sample._replace(paths=(*image.sample.images, str(mask)))
            for key, image in self.images.items()
            if (mask := self._masks[key]) is not None
        ]
        try:
            return {sample.id: sample.split for sample in decide_splits(self.root, masked, "the folder").samples}
        except DataError:  # too few to be split
            return {}

    def _uses(self, class_id: int) -> bool:
        """Return whether an object has a class."""
        for key in self._editable():
            labels = self.labels(key)
            if any(labels.class_of(region) == class_id for region in labels.objects.values()):
                return True
        return False

    def _editable(self) -> list[str]:
        """Return the keys of the images that have a mask, or will have one in a moment."""
        return [
            key
            for key, image in self.images.items()
            if (self._masks[key] is not None or key in self._labels) and not image.sample.has_polygons
        ]

    @contextmanager
    def _each(self, key: str) -> Iterator[None]:
        """Note what is wrong with an image, and go on with the others."""
        try:
            yield
        except (SimMATError, OSError) as error:
            self._broken[key] = str(error)
            _log.warning("%s cannot be edited: %s", self.images[key].sample.id, error)

    def _to_rule(self) -> None:
        """Write the masks again that were written by another rule."""
        for key in self._editable():
            with self._each(key):
                noted = self.noted(key)
                if noted is None or noted.rule != self.card.regions:
                    labels = self.labels(key)
                    if labels.written_rule != self.card.regions:
                        labels.rewrite()

    def _recover(self) -> None:
        """Finish what a crash cut short: masks behind their journal, and masks without classes."""
        for place in (self.home, self.root / MASKS):
            if place.is_dir():
                remove_temporary(place)
        for path in sorted((self.home / "journal").glob("*.jsonl")):
            if path.stem in self.images:
                with self._each(path.stem):
                    self._recover_image(path)
        if self.state.panoptic and self._card.regions != "panoptic":
            before, self.state = self.state, self.state.model_copy(update={"panoptic": False})
            for key in self._editable():  # what has no journal yet is still as the card says
                if not (self.home / "journal" / f"{key}.jsonl").exists():
                    with self._each(key):
                        self.labels(key)
            self.state = before
            self._to_rule()
            self.write_card()

    def _recover_image(self, journal: Path) -> None:
        key = journal.stem
        last, mask = last_record(journal), self._masks[key]
        digest = None if mask is None else sha256_of(mask)
        if last is None or last.sha256 != digest:
            self.labels(key)
            return
        self._noted[key] = last
        if self.state.panoptic and last.rule != "panoptic" and mask is not None:
            self.labels(key).rewrite()

    def _placed(self, key: str, path: Path | None) -> None:
        if self._has_manifest:
            name = "" if path is None else path.relative_to(self.root).as_posix()
            with self._manifest_lock:
                set_manifest_mask(self.root, self.images[key].sample.id, name)
        self._masks[key] = path

    def _mask_name(self, sample: Sample) -> str:
        if self._has_manifest and not re.fullmatch(r"[\w][\w.-]*", sample.id):
            return _key_of(sample.id)
        own = self.root / MASKS / sample.id
        others = (mask for key, mask in self._masks.items() if mask is not None and key != _key_of(sample.id))
        if self._has_manifest and any(mask.with_suffix("") == own for mask in others):  # the mask of another row
            return _key_of(sample.id)
        return sample.id

    def _is_class(self, number: int) -> bool:
        return number > 0 and number != self._card.ignore

    def _new_class(self, number: int, name: str, place: int) -> ObjectClass:
        return ObjectClass(
            id=number, name=name.strip()[:100] or f"class {number}", colour=COLOURS[place % len(COLOURS)]
        )

    def _find_images(self) -> list[FolderImage]:
        if annotation_files(self.root):
            raise DataError(
                f"{self.root}: its labels are a COCO annotations.json, which the annotator does not edit; convert "
                "them to masks first"
            )
        found = (
            manifest_samples(self.root, self.adapter.sources)
            if self._has_manifest
            else find_samples(self.root, self.adapter.sources, masks=False)
        )
        if not found:
            raise DataError(f"{self.root}: no image in {IMAGES}/")
        return [FolderImage(_key_of(sample.id), sample) for sample in sorted(found, key=lambda sample: sample.id)]

    def _read_card(self, overrides: Mapping[str, object]) -> DataCard:
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.exists() else "no such folder"
            raise DataError(f"{self.root}: {what}; give the folder that holds {IMAGES}/")
        masks = self.root / MASKS
        is_labelled = masks.is_dir() and any(not path.name.startswith(".") for path in masks.iterdir())
        card = load_card(self.root, overrides, defaults={} if is_labelled else {"regions": "instances"})
        if card.zero_means == "none":
            raise ConfigError(
                f"{self.root}: by card.toml mask value 0 is a region (zero_means = 'none'), so nothing would be free "
                "to label; the annotator edits masks whose 0 is the background"
            )
        return card

    def _read_state(self) -> FolderState:
        path = self.home / STATE_FILE
        if not path.exists():
            return FolderState(format=1)
        try:
            return parse(FolderState, read_json(path), str(path))
        except SimMATError as error:
            raise DataError(
                f"{error}. Remove this file; names and order of classes are then those of card.toml"
            ) from None

    def _write_state(self, **changes: Any) -> None:
        state = self.state.model_copy(update=changes)
        atomic_write_json(self.home / STATE_FILE, state.model_dump(mode="json"))
        self.state = state


def _key_of(name: str) -> str:
    """Return what stands for an image in addresses: it says nothing of its path."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]

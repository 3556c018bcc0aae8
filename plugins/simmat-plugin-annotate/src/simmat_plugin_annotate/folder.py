"""The folder being labelled: its images, its card, and the labels of each image."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from simmat.data.card import CARD_FILE, DataCard, load_card, write_card
from simmat.data.formats.folders import MASKS
from simmat.data.formats.manifest import MANIFEST_FILE, set_manifest_mask
from simmat.data.predicted import mark_predicted, read_predicted, write_predicted
from simmat.data.samples import Sample, decide_splits, id_as_written
from simmat.errors import ConfigError, DataError, SimMATError
from simmat.io.files import atomic_write_json, remove_temporary, require_inside
from simmat.io.paths import with_home
from simmat.sensors.adapter import (
    ModalityAdapter,
    options_for_card,
    with_data_card,
)
from simmat_plugin_annotate.frames import Frames, find_images
from simmat_plugin_annotate.journal import Record, last_record
from simmat_plugin_annotate.labels import LabelledImage
from simmat_plugin_annotate.masks import Rule, sha256_of
from simmat_plugin_annotate.planes import ImageCache, Planes, UnknownError
from simmat_plugin_annotate.state import (
    CACHES,
    HOME,
    JOURNAL,
    STATE_FILE,
    FolderState,
    GivenClass,
    trim_cache,
)

MAX_CACHED_LABELS = 64
"""Number of images whose labels stay in memory without being used."""

_log = logging.getLogger(__name__)


class LabelFolder:
    """A folder of images and their labels.

    Attributes:
        adapter: the sensor, with the options of the card.
        images: key of an image in addresses -> its files, sorted by name.
        frames: those of its sequences.
        problems: key of an image that cannot be labelled -> why.
    """

    def __init__(
        self,
        root: Path,
        adapter: ModalityAdapter,
        overrides: Mapping[str, object],
        defaults: Mapping[str, object] | None = None,
    ) -> None:
        """Open a folder that is locked by `locked_folder`.

        Args:
            overrides: fields of the card from the command line.
            defaults: fields of the card that it leaves out, such as the alignment of a bundle.

        Raises:
            DataError: it has no images, or its labels are of a kind that cannot be edited.
            ConfigError: the card is invalid, or does not describe masks that exist.
        """
        self.root = with_home(root).absolute()
        self.home = self.root / HOME
        self._lock = threading.RLock()
        self._class_lock = threading.Lock()
        self._manifest_lock = threading.Lock()
        self._mark_lock = threading.Lock()
        self._memory = ImageCache()
        self._planes: dict[str, Planes] = {}
        self._labels: WeakValueDictionary[str, LabelledImage] = WeakValueDictionary()
        self._used: dict[str, LabelledImage] = {}  # most recently used last
        self.problems: dict[str, str] = {}
        self._last_steps: dict[str, Record] = {}
        self._overrides = overrides
        self._defaults = dict(defaults or {})
        self._card = self._read_card(overrides, self._defaults)
        self._stored: DataCard | None = None
        if (self.root / CARD_FILE).exists():
            with suppress(ConfigError):  # it is not valid by itself
                self._stored = self._read_card({}, {})
        self._given = adapter
        self.adapter = with_data_card(adapter, self._card.model_dump())
        self._has_manifest = (self.root / MANIFEST_FILE).exists()
        found = find_images(
            self.root, self.adapter, self._card.stack_axis, self._has_manifest
        )
        self.images = {_key_of(sample.id): sample for sample in found}
        self.frames = Frames(self.images, self.last_step)
        self._masks = {key: sample.mask for key, sample in self.images.items()}
        self.state = FolderState.read(self.home / STATE_FILE).with_card(self._card)
        self._predicted = read_predicted(self.root)

    @property
    def card(self) -> DataCard:
        """The data card with the present classes, as `write_card` writes it."""
        rule = "panoptic" if self.state.panoptic else self._card.regions
        names = {one.id: one.name for one in self.state.classes}
        if names:
            stated = self._card.class_names.items()
            names |= {
                number: name
                for number, name in stated
                if number <= 0 or number == self._card.ignore
            }
        return self._card.model_copy(
            update={"regions": rule, "class_names": names or self._card.class_names}
        )

    @property
    def rule(self) -> Rule:
        """The meaning of mask values."""
        return Rule(self.card, self.state.default if self.state.classes else None)

    @property
    def notice(self) -> str:
        """Warnings about the folder to show before labelling, one a line; "" if there is none."""
        lines = []
        if self.problems:
            first, *rest = self.problems.values()
            lines.append(
                f"cannot be edited: {first}"
                + (f" ({len(rest)} more images in the terminal)" if rest else "")
            )
        if self._card.regions in ("components", "classes"):
            joined = (
                "that touch" if self._card.regions == "components" else "of an image"
            )
            lines.append(
                f"According to card.toml, a mask value is a class (regions = {self._card.regions!r}): in "
                f"training, objects of one class {joined} are one region."
            )
        return "\n".join(lines)

    def find(self, key: str) -> Sample:
        """Return the files of an image.

        Raises:
            UnknownError: there is no image with this key.
        """
        if key not in self.images:
            raise UnknownError("there is no such image")
        return self.images[key]

    def mask_count(self) -> int:
        """Return the number of images that have a mask file."""
        return sum(mask is not None for mask in self._masks.values())

    def planes(self, key: str) -> Planes:
        """Return the planes of the present files of an image."""
        files = self.find(key).files
        known = self._planes.get(key)
        found = Planes(self.adapter, files, self._memory, self.home)
        if known is None or known.digest != found.digest:
            self._planes[key] = found
        return self._planes[key]

    def labels(self, key: str) -> LabelledImage:
        """Return the labels of an image; the first call reads them."""
        sample = self.find(key)
        if sample.has_polygons:
            raise DataError(
                f"{sample.mask}: the labels of this image are polygons, which the annotator cannot edit; "
                "convert them to a label image first"
            )
        with self._lock:
            labels = self._labels.get(key)
            size_hw = self.planes(key).size_hw
            if labels is None:
                mask, new_mask = (
                    self._masks[key],
                    self.root / MASKS / self._mask_name(sample),
                )
                journal = self.home / JOURNAL / f"{key}.jsonl"
                for path in (new_mask if mask is None else mask, journal):
                    require_inside(self.root, path, error=DataError)
                tracks = partial(self.frames.tracks, key) if sample.sequence else None
                labels = LabelledImage(
                    size_hw,
                    lambda: replace(self.rule, tracks=tracks),
                    journal,
                    mask,
                    new_mask,
                    lambda path: self._mask_moved(key, path),
                    PredictedMark(self, sample.id),
                )
                self._labels[key] = labels
                for region in labels.objects.values():
                    self.add_found_class(labels.class_of(region))
            elif labels.size_hw != size_hw:
                before, now = (
                    "x".join(map(str, size[::-1])) for size in (labels.size_hw, size_hw)
                )
                raise DataError(
                    f"{sample.reference}: the image was {before} when its labels were read, and is {now} now (width x "
                    "height); restore the former image"
                )
            self._keep(key, labels)
            return labels

    def _keep(self, key: str, labels: LabelledImage) -> None:
        """Keep recently used labels in memory, and those whose mask file is not up to date."""
        self._used.pop(key, None)
        self._used[key] = labels
        for old in list(self._used)[:-MAX_CACHED_LABELS]:
            if not self._used[old].unwritten:
                dropped = self._used.pop(old)
                if dropped.last is not None:
                    self._last_steps[old] = dropped.last

    def last_step(self, key: str) -> Record | None:
        """Return the last step of an image without reading its labels; None if none is known."""
        labels = self._labels.get(key)
        return self._last_steps.get(key) if labels is None else labels.last

    def read_frames(self, key: str) -> None:
        """Read the masks of a sequence that nobody has edited here, so that new objects get ids that are free."""
        for one in self.frames.of(key):
            if self._masks[one] is not None and self.last_step(one) is None:
                with self._report_errors(one):
                    self.labels(one)

    def is_labelled(self, key: str) -> bool:
        """Return whether an image has a mask, or one that will be written shortly."""
        return self._masks[key] is not None or (
            key in self._used and self._used[key].unwritten
        )

    def flush(self, idle_s: float = 0.0) -> None:
        """Write the mask files that are not up to date and whose labels did not change for `idle_s` seconds."""
        for labels in list(self._used.values()):
            if labels.unwritten and time.monotonic() - labels.changed_s >= idle_s:
                labels.try_flush()

    def write_card(self) -> None:
        """Write `card.toml` if it does not describe the present labels, for example before the first mask."""
        with self._lock:
            options = options_for_card(self._card.modality_options, self._given)
            card = self.card.model_copy(update={"modality_options": options})
            if card != self._stored or not (self.root / CARD_FILE).exists():
                own_fields = {
                    name: getattr(card, name)
                    for name in ("regions", "class_names", "modality_options")
                }
                # other programs may have changed it
                present = self._read_card(self._overrides, self._defaults)
                write_card(self.root, present.model_copy(update=own_fields))
                self._card = self._stored = card

    def set_classes(self, given: Sequence[GivenClass]) -> None:
        """Replace the list of classes; with the first class, the masks are rewritten to contain classes.

        Images are handled one after the other, and can be edited meanwhile.

        Raises:
            DataError: names or ids are not unique, an id is unknown, or a removed class has objects.
            OutputError: masks or card cannot be written.
        """
        with self._class_lock:
            before = self.state
            after = before.with_classes(given, self._card.ignore)
            for one in before.classes:
                if one.id not in after.ids() and self._uses(one.id):
                    raise DataError(
                        f"class {one.name!r} has objects, so it cannot be removed; change their class first"
                    )
            if not after.classes and self.card.regions != "instances":
                raise DataError(
                    "the masks of this folder contain classes, so at least one is needed; rename it instead"
                )
            if (
                not before.classes
                and after.classes
                and self._card.regions == "instances"
            ):
                after = after.model_copy(update={"panoptic": True})
                rule = Rule(
                    self._card.model_copy(update={"regions": "panoptic"}), after.default
                )
                for key in self._editable():  # while mask values are still ids
                    labels = self.labels(key)
                    try:
                        labels.prepare(rule)
                    except DataError as error:
                        raise DataError(f"{labels.mask}: {error}") from None
            with self._lock:
                seen = tuple(
                    one for one in self.state.classes if one.id not in before.ids()
                )  # found in a mask meanwhile
                update = {
                    "classes": (*after.classes, *seen),
                    "bundle": self.state.bundle,
                }
                self._write_state(after.model_copy(update=update))
            self._rewrite_masks()
            self.write_card()

    def keep_bundle(self, bundle: str | None) -> None:
        """Store the run whose bundle the next session starts with."""
        with self._lock:
            self._write_state(self.state.model_copy(update={"bundle": bundle}))

    def stored_bundle(self) -> Path | None:
        """Return the stored run; None if there is none, or it no longer exists."""
        if self.state.bundle is None or not (self.root / self.state.bundle).is_dir():
            return None
        require_inside(self.root, self.root / self.state.bundle, error=DataError)
        return self.root / self.state.bundle

    def add_found_class(self, class_id: int | None) -> None:
        """Add a class that occurs in a mask and is not in the list."""
        with self._lock:
            if class_id is not None:
                self.state = self.state.with_seen(
                    class_id, self._card.class_names.get(class_id, "")
                )

    def is_predicted(self, key: str) -> bool:
        """Return whether the data set says, as far as it was read, that a model made labels of an image."""
        return id_as_written(self.images[key].id) in self._predicted

    def predicted_count(self) -> int:
        """Return the number of images with a mask of which the data set says that a model made labels."""
        return sum(
            mask is not None and self.is_predicted(key)
            for key, mask in self._masks.items()
        )

    def read_mark(self, name: str) -> bool:
        """Return whether the data set says that a model made labels of the image of this name."""
        with self._mark_lock:
            self._predicted = read_predicted(self.root)
            return id_as_written(name) in self._predicted

    def write_mark(self, name: str, *, predicted: bool) -> None:
        """Say in the data set whether a model made labels of the image of this name; OutputError if that fails."""
        own = {id_as_written(name)}
        with self._mark_lock:
            present = read_predicted(self.root)
            self._predicted = present | own if predicted else present - own
            if self._predicted != present:
                write_predicted(self.root, self._predicted)

    def splits(self) -> dict[str, str]:
        """Return image name -> split in which a training uses it; empty if there are too few to split."""
        masked = [
            sample._replace(paths=(*sample.images, str(mask)))
            for key, sample in self.images.items()
            if (mask := self._masks[key]) is not None
        ]
        try:
            marked = mark_predicted(self.root, masked)
            samples, _, _ = decide_splits(self.root, marked, "the folder")
            return {
                sample.id: sample.split for sample in samples if not sample.left_out
            }
        except DataError:  # too few to split
            return {}

    def _uses(self, class_id: int) -> bool:
        """Return whether any object has a class."""
        class_ids = {class_id, None} if class_id == self.state.default else {class_id}
        for key in self._editable():
            last_step = self.last_step(key)
            if last_step is None or last_step.classes is None:
                labels = self.labels(key)
                if class_id in map(labels.class_of, labels.objects.values()):
                    return True
            elif not class_ids.isdisjoint(last_step.classes):
                return True
        return False

    def _editable(self) -> list[str]:
        """Return the keys of the images that have a mask, or a history."""
        known = self._last_steps.keys() | self._used.keys()
        return [
            key
            for key, sample in self.images.items()
            if (self._masks[key] is not None or key in known)
            and not sample.has_polygons
        ]

    @contextmanager
    def _report_errors(self, key: str) -> Iterator[None]:
        """Log an error of an image, so that the others can be handled."""
        try:
            yield
        except (SimMATError, OSError) as error:
            self.problems[key] = str(error)
            _log.warning("%s cannot be edited: %s", self.images[key].id, error)

    def _rewrite_masks(self) -> None:
        """Rewrite the masks that were written by another rule."""
        for key in self._editable():
            with self._report_errors(key):
                last_step = self.last_step(key)
                if last_step is None or last_step.rule != self.card.regions:
                    labels = self.labels(key)
                    if (
                        labels.last.rule if labels.last else "instances"
                    ) != self.card.regions:
                        labels.rewrite()

    def recover(self) -> None:
        """Finish the work that a crash interrupted: masks older than their journal, and masks without classes."""
        masks = {mask.parent for mask in self._masks.values() if mask is not None}
        for folder in {self.home, self.root / MASKS, *masks}:
            if folder.is_dir():
                remove_temporary(folder, older_than_s=0)
        for name in CACHES:
            trim_cache(self.home / name)
        for path in sorted((self.home / JOURNAL).glob("*.jsonl")):
            if (key := path.stem) in self.images:
                with self._report_errors(key):
                    last, mask = last_record(path), self._masks[key]
                    if last is None or last.sha256 != sha256_of(mask):
                        self.labels(key)
                        continue
                    self._last_steps[key] = last
                    if (
                        self.state.panoptic
                        and last.rule != "panoptic"
                        and mask is not None
                    ):
                        self.labels(key).rewrite()
        if self.state.panoptic and self._card.regions != "panoptic":
            before, self.state = (
                self.state,
                self.state.model_copy(update={"panoptic": False}),
            )
            # masks without a journal still follow the card
            for key in self._editable():
                if not (self.home / JOURNAL / f"{key}.jsonl").exists():
                    with self._report_errors(key):
                        self.labels(key).prepare(Rule(self._card))
            self.state = before
            self._rewrite_masks()
            self.write_card()

    def _mask_moved(self, key: str, path: Path | None) -> None:
        if self._has_manifest:
            name = "" if path is None else path.relative_to(self.root).as_posix()
            with self._manifest_lock:
                set_manifest_mask(self.root, self.images[key].id, name)
        self._masks[key] = path

    def _mask_name(self, sample: Sample) -> str:
        if self._has_manifest and not re.fullmatch(r"[\w][\w.-]*", sample.id):
            return _key_of(sample.id)
        own = self.root / MASKS / sample.id
        others = (
            mask
            for key, mask in self._masks.items()
            if mask is not None and key != _key_of(sample.id)
        )
        # the mask of another row
        if self._has_manifest and any(mask.with_suffix("") == own for mask in others):
            return _key_of(sample.id)
        return sample.id

    def _read_card(
        self, overrides: Mapping[str, object], defaults: Mapping[str, object]
    ) -> DataCard:
        masks = self.root / MASKS
        is_labelled = masks.is_dir() and any(
            not path.name.startswith(".") for path in masks.iterdir()
        )
        defaults = dict(defaults)
        if not is_labelled:
            defaults["regions"] = "instances"
        card = load_card(self.root, overrides, defaults=defaults)
        if card.zero_means == "none":
            raise ConfigError(
                f"{self.root}: according to card.toml, mask value 0 is a region (zero_means = 'none'), so no "
                "pixel would be free to label; the annotator needs masks whose value 0 is the background"
            )
        return card

    def _write_state(self, state: FolderState) -> None:
        atomic_write_json(self.home / STATE_FILE, state.model_dump(mode="json"))
        self.state = state


@dataclass(frozen=True)
class PredictedMark:
    """The mark of one image in `predicted.csv`."""

    folder: LabelFolder
    name: str

    def is_set(self) -> bool:
        """Return whether the image is listed there."""
        return self.folder.read_mark(self.name)

    def set(self, *, predicted: bool) -> None:
        """List the image there, or take it out."""
        self.folder.write_mark(self.name, predicted=predicted)


def _key_of(name: str) -> str:
    """Return the key of an image in addresses, which does not reveal its path."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]

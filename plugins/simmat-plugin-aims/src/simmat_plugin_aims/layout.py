"""Layouts: where a published data set keeps its images, masks and splits, as data and one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems


@dataclass
class Found:
    """The samples that a layout found in a folder.

    Attributes:
        samples: complete samples, with the released splits.
        missing: descriptions of samples with missing files.
        excluded: descriptions of samples left out on purpose.
        notes: sentences for the user.
    """

    samples: list[Sample] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, split: str, files: Mapping[str, Path | None], mask: Path | None) -> None:
        """Add a sample, or note the files it lacks.

        Args:
            name: its id.
            split: "train", "val" or "test".
            files: manifest column -> file, None if it is missing.
            mask: its label image, None if it is missing.
        """
        lacking = [column for column, path in (*files.items(), ("mask", mask)) if path is None]
        if lacking:
            self.missing.append(f"{split} sample {name!r} has no {', '.join(lacking)}")
        else:
            self.samples.append(Sample.of(name, split, {k: v for k, v in files.items() if v is not None}, mask))

    def keep_test_apart(self) -> None:
        """Leave out training samples whose reference image is also in the test split."""
        tested = {sample.reference for sample in self.samples if sample.split == "test"}
        kept = [sample for sample in self.samples if sample.split != "train" or sample.reference not in tested]
        if count := len(self.samples) - len(kept):
            self.notes.append(f"{count} training samples are also in the test list, and are left out of training.")
        self.samples = kept

    def tell_apart(self) -> None:
        """Make ids unique by a number, for example if one image has a mask per object."""
        seen: dict[str, int] = {}
        for index, sample in enumerate(self.samples):
            count = seen[sample.id] = seen.get(sample.id, 0) + 1
            if count > 1:
                self.samples[index] = sample._replace(id=f"{sample.id}#{count}")


@dataclass(frozen=True)
class Layout:
    """The layout of a published data set.

    Attributes:
        name: name for `simmat data index`.
        aliases: other names.
        title: name of the data set, for the user.
        tree: the expected contents of the folder, for messages.
        needs: required files, and folders with "/" at the end.
        read: finds the samples in a folder.
        card: fields of the data card that the benchmark states.
        modalities: sensors that can be trained on it, for the user.
    """

    name: str
    title: str
    tree: str
    needs: Sequence[str]
    read: Callable[[Path], Found]
    card: Mapping[str, object]
    modalities: Sequence[str]
    aliases: Sequence[str] = ()

    def lacks(self, root: Path) -> list[str]:
        """Describe which of `needs` a folder does not have."""
        return [
            f"no folder {need}" if need.endswith("/") else f"no file {need}"
            for need in self.needs
            if not ((root / need).is_dir() if need.endswith("/") else (root / need).is_file())
        ]

    def find(self, root: Path) -> Found:
        """Read a folder of this layout.

        Raises:
            DataError: the folder does not exist or is not of this layout; the message shows the expected tree.
        """
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "no such folder"
            raise DataError(f"{root}: {what}; expected a folder of layout {self.name!r} with:\n{self.tree}")
        if lacking := self.lacks(root):
            raise self.refuse(root, lacking)
        found = self.read(root)
        if not found.samples and not found.missing:
            raise self.refuse(root, ["nothing in it matches"])
        return found

    def refuse(self, root: Path, problems: Sequence[str]) -> DataError:
        """Return the error for a folder that is not of this layout; it names a subfolder that is."""
        inner = next((path for path in sorted(root.iterdir()) if path.is_dir() and not self.lacks(path)), None)
        hint = f"\ndid you mean {inner}?" if inner else ""
        title = f"{root}: not of layout {self.name!r}:"
        return DataError(f"{all_problems(title, problems)}\nexpected:\n{self.tree}{hint}")

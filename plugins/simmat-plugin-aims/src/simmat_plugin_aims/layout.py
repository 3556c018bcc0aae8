"""What a layout is: where a published data set keeps its images, masks and splits, told as data and one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simmat.data.samples import Sample
from simmat.errors import DataError, all_problems


@dataclass
class Found:
    """What a layout found in a folder.

    Attributes:
        samples: files by manifest column, masks, splits as released; every file is there.
        missing: in words, what stands alone or is named and not there.
        excluded: in words, what was left out on purpose.
        notes: sentences a user should read.
    """

    samples: list[Sample] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, split: str, files: Mapping[str, Path | None], mask: Path | None) -> None:
        """Add a sample, or say what it lacks.

        Args:
            name: its id.
            split: "train", "val" or "test".
            files: manifest column -> file, None where it is not there.
            mask: its label image.
        """
        lacking = [column for column, path in (*files.items(), ("mask", mask)) if path is None]
        if lacking:
            self.missing.append(f"{split} sample {name!r} has no {', '.join(lacking)}")
        else:
            self.samples.append(Sample.of(name, split, {k: v for k, v in files.items() if v is not None}, mask))

    def keep_test_apart(self) -> None:
        """Leave training samples out whose reference image is tested on: their scores would be of training images."""
        tested = {sample.reference for sample in self.samples if sample.split == "test"}
        kept = [sample for sample in self.samples if sample.split != "train" or sample.reference not in tested]
        if count := len(self.samples) - len(kept):
            self.notes.append(f"{count} training samples stand in the test list too and are left out of training.")
        self.samples = kept

    def tell_apart(self) -> None:
        """Number the ids that several samples share, as where one image has a mask for each object."""
        seen: dict[str, int] = {}
        for index, sample in enumerate(self.samples):
            count = seen[sample.id] = seen.get(sample.id, 0) + 1
            if count > 1:
                self.samples[index] = sample._replace(id=f"{sample.id}#{count}")


@dataclass(frozen=True)
class Layout:
    """A published data set's layout.

    Attributes:
        name: what `simmat data index` takes.
        aliases: other names it goes by.
        title: the data set, for people.
        tree: what must be in the folder, for people.
        needs: files (no "/" at the end) and folders ("/" at the end) without which it is not this layout.
        read: folder -> what is in it.
        card: fields of the data card that the benchmark states.
        modalities: sensors that can be trained on it, for people.
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
        """Return what of `needs` a folder does not have, in words."""
        return [
            f"no folder {need}" if need.endswith("/") else f"no file {need}"
            for need in self.needs
            if not ((root / need).is_dir() if need.endswith("/") else (root / need).is_file())
        ]

    def find(self, root: Path) -> Found:
        """Read a folder of this layout.

        Raises:
            DataError: there is no such folder, or it is not of this layout; the message shows the expected tree.
        """
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "no such folder"
            raise DataError(f"{root}: {what}; layout {self.name!r} is a folder with:\n{self.tree}")
        if lacking := self.lacks(root):
            raise self.refuse(root, lacking)
        found = self.read(root)
        if not found.samples and not found.missing:
            raise self.refuse(root, ["nothing in it matches"])
        return found

    def refuse(self, root: Path, problems: Sequence[str]) -> DataError:
        """Build the error of a folder that is not of this layout; one below it that is gets named."""
        inner = next((path for path in sorted(root.iterdir()) if path.is_dir() and not self.lacks(path)), None)
        hint = f"\ndid you mean {inner}?" if inner else ""
        title = f"{root}: not of layout {self.name!r}:"
        return DataError(f"{all_problems(title, problems)}\nexpected:\n{self.tree}{hint}")

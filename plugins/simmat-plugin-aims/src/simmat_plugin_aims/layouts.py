"""The five data sets of the AIMS benchmark (arXiv 2409.08083) on disk: where they keep images, masks and splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from simmat.data.formats.folders import files_by_stem
from simmat.data.samples import MASK_EXTENSIONS, Sample
from simmat.errors import DataError, all_problems, unknown_name
from simmat_plugin_aims.tables import MASK_ROLE, PICTURES, Role, read_table


@dataclass
class LayoutSamples:
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

    def add(
        self, name: str, split: str, files: Mapping[str, Path | None], mask: Path | None
    ) -> None:
        """Add a sample, or note the files it lacks.

        Args:
            name: its id.
            split: "train", "val" or "test".
            files: manifest column -> file, None if it is missing.
            mask: its label image, None if it is missing.
        """
        lacking = [
            column for column, path in (*files.items(), ("mask", mask)) if path is None
        ]
        if lacking:
            self.missing.append(f"{split} sample {name!r} has no {', '.join(lacking)}")
        else:
            self.samples.append(
                Sample(
                    name, split, tuple(files), tuple(map(str, (*files.values(), mask)))
                )
            )

    def keep_test_apart(self) -> None:
        """Leave out training samples whose reference image is also in the test split."""
        tested = {sample.reference for sample in self.samples if sample.split == "test"}
        kept = [
            sample
            for sample in self.samples
            if sample.split != "train" or sample.reference not in tested
        ]
        if count := len(self.samples) - len(kept):
            self.notes.append(
                f"{count} training samples are also in the test list, and are left out of training."
            )
        self.samples = kept


class Layout(NamedTuple):
    """The layout of a published data set.

    Attributes:
        title: name of the data set, for the user.
        tree: the expected contents of the folder, for messages.
        needs: required files, and folders with "/" at the end.
        read: finds the samples in a folder.
        card: fields of the data card that the benchmark states.
        modalities: sensors that can be trained on it, for the user.
    """

    title: str
    tree: str
    needs: Sequence[str]
    read: Callable[[Path], LayoutSamples]
    card: Mapping[str, object]
    modalities: Sequence[str]

    def lacks(self, root: Path) -> list[str]:
        """Describe which of `needs` a folder does not have."""
        return [
            f"no {'folder' if need.endswith('/') else 'file'} {need}"
            for need in self.needs
            if not (
                (root / need).is_dir()
                if need.endswith("/")
                else (root / need).is_file()
            )
        ]

    def find(self, root: Path) -> LayoutSamples:
        """Read a folder of this layout.

        Raises:
            DataError: the folder does not exist or is not of this layout; the message shows the expected tree.
        """
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder; expected a folder of layout {self.title!r} with:\n{self.tree}"
            )
        problems = self.lacks(root)
        found = LayoutSamples() if problems else self.read(root)
        if not found.samples and not found.missing:
            inner = next(
                (
                    path
                    for path in sorted(root.iterdir())
                    if path.is_dir() and not self.lacks(path)
                ),
                None,
            )
            hint = f"\ndid you mean {inner}?" if inner else ""
            title = f"{root}: does not have the layout {self.title!r}:"
            problems = problems or ["nothing in it matches"]
            raise DataError(
                f"{all_problems(title, problems)}\nexpected:\n{self.tree}{hint}"
            )
        return found


def by_name(folder: Path, pattern: str, endings: Iterable[str]) -> dict[str, Path]:
    """Return NAME -> file for the files in a folder whose name without ending matches a pattern.

    Args:
        folder: searched without its subfolders.
        pattern: regular expression for the full name, whose first group is NAME.
        endings: lower case, with the dot.

    Raises:
        DataError: two files have the same NAME.
    """
    found: dict[str, Path] = {}
    for stem, paths in (
        sorted(files_by_stem(folder, endings).items()) if folder.is_dir() else ()
    ):
        match = re.fullmatch(pattern, stem)
        if match is None or "/" in stem:
            continue
        if len(paths) > 1 or match[1] in found:
            raise DataError(
                f"{folder}: {paths[-1].name} is a second file with the name {match[1]}; remove one of them"
            )
        found[match[1]] = paths[0]
    return found


def read_tables(table: str, roles: Sequence[Role], root: Path) -> LayoutSamples:
    """Read the samples that the csv files of train and test list; `table` is their name with {} for the split."""
    found, seen = LayoutSamples(), dict[str, int]()
    for split in ("train", "test"):
        path, rows = root / table.format(split), set[tuple[object, ...]]()
        for line, files in read_table(path, roles):
            if problem := next(
                (
                    f"{name} {file}"
                    for name, file in files.items()
                    if isinstance(file, str)
                ),
                None,
            ):
                found.missing.append(f"{path.name} line {line}: {problem}")
            # a table with a row per object repeats the files
            elif (key := tuple(files.values())) not in rows:
                rows.add(key)
                paths = {
                    name: file
                    for name, file in files.items()
                    if not isinstance(file, str)
                }
                mask = paths.pop(MASK_ROLE.name)
                # a row names at least one
                named = next(file for file in (*paths.values(), mask) if file)
                name = named.relative_to(root).with_suffix("").as_posix()
                seen[name] = seen.get(name, 0) + 1
                found.add(
                    name if seen[name] == 1 else f"{name}#{seen[name]}",
                    split,
                    paths,
                    mask,
                )
    found.keep_test_apart()
    return found


_RGB = Role("rgb", ("rgb", "visible", "vis", "color", "colour"), PICTURES)
IVRG_ROLES = (
    _RGB,
    Role("nir", ("nir", "infrared", "ir"), (*PICTURES, ".npy")),
    MASK_ROLE,
)
GLASS_ROLES = (
    _RGB,
    Role("thermal", ("thermal", "temperature", "infrared", "ir", "t"), (".npy",)),
    MASK_ROLE,
)
IVRG_SHARE = 1000 / 1024**2
"""Smallest region: 1000 px at 1024 x 1024, as a fraction of the image."""
_IVRG_TABLE, _GLASS_TABLE = (
    "IVRG-nir_{}_GroundTruth.csv",
    "RGB_T_Glass_{}_GroundTruth.csv",
)

NYU_FOLDERS = {
    "rgb": ("RGB", PICTURES),
    "depth": ("Depth", (".npy",)),
    "hha": ("HHA", PICTURES),
}


def read_nyudv2(root: Path) -> LayoutSamples:
    """Read the names in train.txt and test.txt; each has a file in RGB, Depth, HHA and Mask_gt."""
    columns = {
        column: by_name(root / folder, "(.+)", endings)
        for column, (folder, endings) in NYU_FOLDERS.items()
    }
    masks = by_name(root / "Mask_gt", "(.+)", MASK_EXTENSIONS)
    found = LayoutSamples()
    for split in ("train", "test"):
        for name in _names(root / f"{split}.txt"):
            found.add(
                name,
                split,
                {column: files.get(name) for column, files in columns.items()},
                masks.get(name),
            )
    found.keep_test_apart()
    return found


def _names(path: Path) -> list[str]:
    """Return the unique names in a list: the first word of each line, without folders and ending."""
    try:
        lines = path.read_text(encoding="utf-8-sig").replace(",", " ").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({error.reason}); it must have one name per line"
        ) from None
    words = [
        PurePosixPath(line.split()[0].replace("\\", "/"))
        for line in lines
        if line.split()
    ]
    endings = (*MASK_EXTENSIONS, *PICTURES)
    return list(
        dict.fromkeys(
            word.stem if word.suffix.lower() in endings else word.name for word in words
        )
    )


RGBP_KINDS = {"rgb": "image", "aolp": "aolp", "dolp": "dolp"}
"""Manifest column, which is also the end of file names -> folder."""
RGBP_BROKEN = ("20210808013065", "20210811002205")
"""Ids that the benchmark leaves out."""


def read_rgbp_glass(root: Path) -> LayoutSamples:
    """Match files by NAME: image/NAME_rgb, aolp/NAME_aolp, dolp/NAME_dolp, instance_mask/NAME_instance_mask."""
    found = LayoutSamples()
    for split in ("train", "test"):
        columns = {
            kind: by_name(root / split / folder, f"(.+)_{kind}", PICTURES)
            for kind, folder in RGBP_KINDS.items()
        }
        masks = by_name(
            root / split / "instance_mask", "(.+)_instance_mask", MASK_EXTENSIONS
        )
        for name in sorted(set(masks).union(*columns.values())):
            if set(re.split(r"[^0-9]+", name)) & set(RGBP_BROKEN):
                found.excluded.append(f"{split}/{name} (broken in the release)")
                continue
            files = {column: paths.get(name) for column, paths in columns.items()}
            found.add(f"{split}/{name}", split, files, masks.get(name))
    return found


ANGLES_DEG = (0, 45, 90, 135)
ZJU_SPLITS = {"train": "train", "val": "test"}
"""Folder -> split; the benchmark tests on the released `val`."""


def read_zju_rgbp(root: Path) -> LayoutSamples:
    """Match files by NAME: 0/NAME_0°, 45/NAME_45°, 90/NAME_90°, 135/NAME_135°, label_sam/NAME.

    Archives often damage the degree sign, so any text that does not start with a digit may follow the angle.
    """
    found = LayoutSamples()
    for folder, split in ZJU_SPLITS.items():
        columns = {
            f"i{angle}": by_name(
                root / folder / str(angle), rf"(.+)_{angle}(?!\d)[^/]*", PICTURES
            )
            for angle in ANGLES_DEG
        }
        masks = by_name(root / folder / "label_sam", "(.+)", MASK_EXTENSIONS)
        for name in sorted(set(masks).union(*columns.values())):
            files = {column: paths.get(name) for column, paths in columns.items()}
            found.add(f"{folder}/{name}", split, files, masks.get(name))
    found.notes.append(
        "The released val folder is the test split, as in the benchmark."
    )
    return found


LAYOUTS: Mapping[str, Layout] = {
    "ivrg-nir": Layout(
        title="IVRG_RGBNIR",
        tree="  IVRG-nir_train_GroundTruth.csv, IVRG-nir_test_GroundTruth.csv   columns of pictures and masks\n"
        "  Outdoor_dataset/…",
        needs=(
            _IVRG_TABLE.format("train"),
            _IVRG_TABLE.format("test"),
            "Outdoor_dataset/",
        ),
        read=partial(read_tables, _IVRG_TABLE, IVRG_ROLES),
        card={"regions": "instances", "min_region_share": IVRG_SHARE},
        modalities=("nir", "rgb+nir"),
    ),
    "rgb-thermal-glass": Layout(
        title="RGB-Thermal-Glass",
        tree="  RGB_T_Glass_train_GroundTruth.csv, RGB_T_Glass_test_GroundTruth.csv   columns of .npy files and masks\n"
        "  the files they name, below this folder",
        needs=(_GLASS_TABLE.format("train"), _GLASS_TABLE.format("test")),
        read=partial(read_tables, _GLASS_TABLE, GLASS_ROLES),
        card={"regions": "instances"},
        modalities=("thermal", "thermal-minmax", "rgb+thermal", "rgb+thermal-minmax"),
    ),
    "nyudv2": Layout(
        title="NYUDepthv2",
        tree="  train.txt, test.txt   one name per line\n"
        "  RGB/NAME.png, Depth/NAME.npy, HHA/NAME.png, Mask_gt/NAME.png",
        needs=("train.txt", "test.txt", "RGB/", "Depth/", "HHA/", "Mask_gt/"),
        read=read_nyudv2,
        card={"regions": "instances"},
        modalities=(
            "depth",
            "depth-minmax",
            "hha",
            "rgb+depth",
            "rgb+depth-minmax",
            "rgb+hha",
        ),
    ),
    "rgbp-glass": Layout(
        title="RGBP-Glass (pgsnet)",
        tree="  {train,test}/image/NAME_rgb.tiff\n"
        "  {train,test}/aolp/NAME_aolp.tiff\n"
        "  {train,test}/dolp/NAME_dolp.tiff\n"
        "  {train,test}/instance_mask/NAME_instance_mask.png",
        needs=tuple(
            f"{split}/{folder}/"
            for split in ("train", "test")
            for folder in (*RGBP_KINDS.values(), "instance_mask")
        ),
        read=read_rgbp_glass,
        card={
            "regions": "instances",
            "min_region": 100,
            "modality_options": {"polarization": {"files": "aolp-dolp"}},
        },
        modalities=(
            "polarization-aims",
            "rgb+polarization-aims",
            "polarization",
            "rgb+polarization",
        ),
    ),
    "zju-rgbp": Layout(
        title="ZJU-RGB-P (zju-rgbp)",
        tree="  {train,val}/0/NAME_0°.png, 45/NAME_45°.png, 90/NAME_90°.png, 135/NAME_135°.png\n"
        "  {train,val}/label_sam/NAME.png",
        needs=tuple(
            f"{folder}/{inner}/"
            for folder in ZJU_SPLITS
            for inner in (*ANGLES_DEG, "label_sam")
        ),
        read=read_zju_rgbp,
        card={"regions": "instances", "min_region": 10000},
        modalities=("polarization-aims-angles", "polarization"),
    ),
}
"""Name for `simmat data index` -> layout."""


def find_layout(name: str) -> tuple[str, Layout]:
    """Return name and layout for a name in any letter case; "pgsnet" is rgbp-glass.

    Raises:
        UnknownNameError: there is no such layout.
    """
    found = {"pgsnet": "rgbp-glass"}.get(name.lower(), name.lower())
    if found not in LAYOUTS:
        raise unknown_name(
            "layout",
            name,
            LAYOUTS,
            hint="Any other folder: write a manifest.csv, see the page 'Your data' of SimMAT's documentation",
        )
    return found, LAYOUTS[found]

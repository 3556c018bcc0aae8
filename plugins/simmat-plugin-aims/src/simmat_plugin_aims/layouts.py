"""The five data sets of the AIMS benchmark (arXiv 2409.08083) on disk."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from simmat.data.samples import MASK_EXTENSIONS
from simmat.errors import DataError, unknown_name
from simmat_plugin_aims.files import PICTURES, by_name, names_of
from simmat_plugin_aims.layout import Found, Layout
from simmat_plugin_aims.tables import MASK_ROLE, Role, read_tables

IVRG_ROLES = (
    Role("rgb", ("rgb", "visible", "vis", "color", "colour"), PICTURES),
    Role("nir", ("nir", "infrared", "ir"), (*PICTURES, ".npy")),
    MASK_ROLE,
)
_IVRG_TABLE = "IVRG-nir_{}_GroundTruth.csv"
IVRG_SHARE = 1000 / 1024**2
"""Smallest region: 1000 px at 1024 x 1024, as a fraction of the image."""


def read_ivrg_nir(root: Path) -> Found:
    """Read the samples of both tables; their files are below the folder."""
    return read_tables(root, _IVRG_TABLE, IVRG_ROLES)


IVRG_NIR = Layout(
    name="ivrg-nir",
    title="IVRG_RGBNIR",
    tree="  IVRG-nir_train_GroundTruth.csv, IVRG-nir_test_GroundTruth.csv   columns of pictures and masks\n"
    "  Outdoor_dataset/…",
    needs=(_IVRG_TABLE.format("train"), _IVRG_TABLE.format("test"), "Outdoor_dataset/"),
    read=read_ivrg_nir,
    card={"regions": "instances", "min_region_share": IVRG_SHARE},
    modalities=("nir", "rgb+nir"),
)

GLASS_ROLES = (
    Role("rgb", ("rgb", "visible", "vis", "color", "colour"), PICTURES),
    Role("thermal", ("thermal", "temperature", "infrared", "ir", "t"), (".npy",)),
    MASK_ROLE,
)
_GLASS_TABLE = "RGB_T_Glass_{}_GroundTruth.csv"


def read_rgb_thermal_glass(root: Path) -> Found:
    """Read the samples of both tables; their files are below the folder."""
    return read_tables(root, _GLASS_TABLE, GLASS_ROLES)


RGB_THERMAL_GLASS = Layout(
    name="rgb-thermal-glass",
    title="RGB-Thermal-Glass",
    tree="  RGB_T_Glass_train_GroundTruth.csv, RGB_T_Glass_test_GroundTruth.csv   columns of .npy files and masks\n"
    "  the files they name, below this folder",
    needs=(_GLASS_TABLE.format("train"), _GLASS_TABLE.format("test")),
    read=read_rgb_thermal_glass,
    card={"regions": "instances"},
    modalities=("thermal", "thermal-minmax", "rgb+thermal", "rgb+thermal-minmax"),
)

NYU_FOLDERS = {"rgb": ("RGB", PICTURES), "depth": ("Depth", (".npy",)), "hha": ("HHA", PICTURES)}
_ANY_NAME = "(.+)"


def read_nyudv2(root: Path) -> Found:
    """Read the names in train.txt and test.txt; each has a file in RGB, Depth, HHA and Mask_gt."""
    columns = {column: by_name(root / folder, _ANY_NAME, endings) for column, (folder, endings) in NYU_FOLDERS.items()}
    masks = by_name(root / "Mask_gt", _ANY_NAME, MASK_EXTENSIONS)
    found = Found()
    for split in ("train", "test"):
        for name in _names(root / f"{split}.txt"):
            found.add(name, split, {column: files.get(name) for column, files in columns.items()}, masks.get(name))
    found.keep_test_apart()
    return found


def _names(path: Path) -> list[str]:
    """Return the unique names in a list: the first word of each line, without folders and ending."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); it must have one name per line") from None
    words = [line.replace(",", " ").split()[0] for line in lines if line.replace(",", " ").split()]
    if not words:
        raise DataError(f"{path}: the file is empty; it must have one name per line")
    return list(dict.fromkeys(_bare(word) for word in words))


def _bare(word: str) -> str:
    name = PurePosixPath(word.replace("\\", "/")).name
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in (*MASK_EXTENSIONS, *PICTURES) else name


NYUDV2 = Layout(
    name="nyudv2",
    title="NYUDepthv2",
    tree="  train.txt, test.txt   one name per line\n  RGB/NAME.png, Depth/NAME.npy, HHA/NAME.png, Mask_gt/NAME.png",
    needs=("train.txt", "test.txt", "RGB/", "Depth/", "HHA/", "Mask_gt/"),
    read=read_nyudv2,
    card={"regions": "instances"},
    modalities=("depth", "depth-minmax", "hha", "rgb+depth", "rgb+depth-minmax", "rgb+hha"),
)

RGBP_KINDS = {"rgb": "image", "aolp": "aolp", "dolp": "dolp"}
"""Manifest column, which is also the end of file names -> folder."""

RGBP_BROKEN = ("20210808013065", "20210811002205")
"""Ids that the benchmark leaves out."""


def read_rgbp_glass(root: Path) -> Found:
    """Match files by NAME: image/NAME_rgb, aolp/NAME_aolp, dolp/NAME_dolp, instance_mask/NAME_instance_mask."""
    found = Found()
    for split in ("train", "test"):
        columns = {
            kind: by_name(root / split / folder, f"(.+)_{kind}", PICTURES) for kind, folder in RGBP_KINDS.items()
        }
        masks = by_name(root / split / "instance_mask", "(.+)_instance_mask", MASK_EXTENSIONS)
        for name in names_of({**columns, "mask": masks}):
            if set(re.split(r"[^0-9]+", name)) & set(RGBP_BROKEN):
                found.excluded.append(f"{split}/{name} (broken in the release)")
                continue
            files = {column: paths.get(name) for column, paths in columns.items()}
            found.add(f"{split}/{name}", split, files, masks.get(name))
    return found


RGBP_GLASS = Layout(
    name="rgbp-glass",
    aliases=("pgsnet",),
    title="RGBP-Glass (pgsnet)",
    tree="  {train,test}/image/NAME_rgb.tiff\n"
    "  {train,test}/aolp/NAME_aolp.tiff\n"
    "  {train,test}/dolp/NAME_dolp.tiff\n"
    "  {train,test}/instance_mask/NAME_instance_mask.png",
    needs=tuple(
        f"{split}/{folder}/" for split in ("train", "test") for folder in (*RGBP_KINDS.values(), "instance_mask")
    ),
    read=read_rgbp_glass,
    card={"regions": "instances", "min_region": 100, "modality_options": {"polarization": {"files": "aolp-dolp"}}},
    modalities=(
        "polarization-aims",
        "rgb+polarization-aims",
        "polarization",
        "rgb+polarization",
    ),
)

ANGLES_DEG = (0, 45, 90, 135)
ZJU_SPLITS = {"train": "train", "val": "test"}
"""Folder -> split; the benchmark tests on the released `val`."""


def read_zju_rgbp(root: Path) -> Found:
    """Match files by NAME: 0/NAME_0°, 45/NAME_45°, 90/NAME_90°, 135/NAME_135°, label_sam/NAME.

    Archives often damage the degree sign, so any text that does not start with a digit may follow the angle.
    """
    found = Found()
    for folder, split in ZJU_SPLITS.items():
        columns = {
            f"i{angle}": by_name(root / folder / str(angle), rf"(.+)_{angle}(?!\d)[^/]*", PICTURES)
            for angle in ANGLES_DEG
        }
        masks = by_name(root / folder / "label_sam", "(.+)", MASK_EXTENSIONS)
        for name in names_of(columns):
            files = {column: paths.get(name) for column, paths in columns.items()}
            found.add(f"{folder}/{name}", split, files, masks.get(name))
        alone = sorted(set(masks) - set(names_of(columns)))
        found.missing += [f"label {folder}/label_sam/{masks[name].name} has no image" for name in alone]
    found.notes.append("The released val folder is the test split, as in the benchmark.")
    return found


ZJU_RGBP = Layout(
    name="zju-rgbp",
    title="ZJU-RGB-P (zju-rgbp)",
    tree="  {train,val}/0/NAME_0°.png, 45/NAME_45°.png, 90/NAME_90°.png, 135/NAME_135°.png\n"
    "  {train,val}/label_sam/NAME.png",
    needs=tuple(f"{folder}/{inner}/" for folder in ZJU_SPLITS for inner in (*ANGLES_DEG, "label_sam")),
    read=read_zju_rgbp,
    card={"regions": "instances", "min_region": 10000},
    modalities=("polarization-aims-angles", "polarization"),
)

LAYOUTS: tuple[Layout, ...] = (IVRG_NIR, RGB_THERMAL_GLASS, NYUDV2, RGBP_GLASS, ZJU_RGBP)


def find_layout(name: str) -> Layout:
    """Return the layout of a name or alias, in any letter case.

    Raises:
        UnknownNameError: there is no such layout.
    """
    named = {alias: layout for layout in LAYOUTS for alias in (layout.name, *layout.aliases)}
    if name.lower() not in named:
        raise unknown_name("layout", name, named, hint="Any other folder: write a manifest.csv, see docs/data.md")
    return named[name.lower()]

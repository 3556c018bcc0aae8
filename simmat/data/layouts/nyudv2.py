"""NYUDepthv2 of the AIMS benchmark: lists of names, and a folder for each kind of file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from simmat.data.layouts.files import PICTURES, by_name
from simmat.data.layouts.layout import Found, Layout
from simmat.data.masks import MASK_EXTENSIONS
from simmat.errors import DataError

FOLDERS = {"rgb": ("RGB", PICTURES), "depth": ("Depth", (".npy",)), "hha": ("HHA", PICTURES)}
_ANY_NAME = "(.+)"


def read(root: Path) -> Found:
    """Take the names of train.txt and test.txt; each has a file in RGB, Depth, HHA and Mask_gt."""
    columns = {column: by_name(root / folder, _ANY_NAME, endings) for column, (folder, endings) in FOLDERS.items()}
    masks = by_name(root / "Mask_gt", _ANY_NAME, MASK_EXTENSIONS)
    found = Found()
    for split in ("train", "test"):
        for name in _names(root / f"{split}.txt"):
            found.add(name, split, {column: files.get(name) for column, files in columns.items()}, masks.get(name))
    found.keep_test_apart()
    return found


def _names(path: Path) -> list[str]:
    """Return the names of a list, each once: of the first word of a line, without folders and ending."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); it should hold a name a line") from None
    words = [line.replace(",", " ").split()[0] for line in lines if line.replace(",", " ").split()]
    if not words:
        raise DataError(f"{path}: no name in it; it should hold a name a line")
    return list(dict.fromkeys(_bare(word) for word in words))


def _bare(word: str) -> str:
    name = PurePosixPath(word.replace("\\", "/")).name
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in (*MASK_EXTENSIONS, *PICTURES) else name


LAYOUT = Layout(
    name="nyudv2",
    title="NYUDepthv2",
    tree="  train.txt, test.txt   a name a line\n  RGB/NAME.png, Depth/NAME.npy, HHA/NAME.png, Mask_gt/NAME.png",
    needs=("train.txt", "test.txt", "RGB/", "Depth/", "HHA/", "Mask_gt/"),
    read=read,
    card={"regions": "instances"},
    modalities=("depth", "depth-minmax", "hha", "rgb+depth", "rgb+depth-minmax", "rgb+hha"),
)

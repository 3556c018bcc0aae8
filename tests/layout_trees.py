"""Small folders in the layouts of the AIMS benchmark, for the tests of `simmat data index`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

SIZE_HW = (128, 128)  # zju-rgbp counts regions of 10000 px


def mask() -> npt.NDArray[np.uint8]:
    """One object of 104 by 104 px and one of 6 by 6."""
    label = np.zeros(SIZE_HW, dtype=np.uint8)
    label[4:108, 4:108] = 1
    label[116:122, 116:122] = 2
    return label


def picture(seed: object, planes: int = 3) -> npt.NDArray[np.uint8]:
    """Noise, brighter where the objects are."""
    rng = np.random.default_rng(abs(hash(str(seed))) % 2**32)
    values = rng.integers(0, 100, (*SIZE_HW, planes)) + 60 * (mask() > 0)[..., None]
    return values.astype(np.uint8) if planes > 1 else values[..., 0].astype(np.uint8)


def write(path: Path, values: npt.NDArray[np.generic]) -> None:
    """Write an array by the ending of its path, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tiff":
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(path, values, photometric=photometric)
    else:
        Image.fromarray(values).save(path)


def table(path: Path, header: str, rows: Sequence[Sequence[str]]) -> None:
    """Write a csv."""
    path.write_text(
        "\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8"
    )


def ivrg_nir(root: Path) -> None:
    """Near-infrared and colour in one folder a kind, and two tables."""
    for split, count in (("train", 4), ("test", 2)):
        rows = []
        for index in range(count):
            name = f"{split}{index}"
            write(root / f"Outdoor_dataset/nir/{name}.png", picture(name, 1))
            write(root / f"Outdoor_dataset/rgb/{name}.png", picture(name + "c"))
            write(root / f"Outdoor_dataset/mask/{name}.png", mask())
            rows.append(
                (f"Outdoor_dataset/nir/{name}.png", f"Outdoor_dataset/mask/{name}.png")
            )
        table(root / f"IVRG-nir_{split}_GroundTruth.csv", "image,mask", rows)


def rgb_thermal_glass(root: Path) -> None:
    """Thermal arrays beside pictures, and two tables with the paths of another machine."""
    for split, count in (("train", 4), ("test", 2)):
        rows = []
        for index in range(count):
            name, away = f"{split}_{index}", f"/home/x/data/RGB-Thermal-Glass/{split}"
            write(
                root / f"{split}/thermal/{name}.npy",
                picture(name, 1).astype(np.float32) * 50 + 20000,
            )
            write(root / f"{split}/rgb/{name}.png", picture(name + "c"))
            write(root / f"{split}/gt/{name}.png", (mask() == 1).astype(np.uint8) * 255)
            rows.append(
                (
                    f"{away}/rgb/{name}.png",
                    f"{away}/thermal/{name}.npy",
                    f"{away}/gt/{name}.png",
                )
            )
        table(
            root / f"RGB_T_Glass_{split}_GroundTruth.csv",
            "rgb_path,thermal_path,gt_path",
            rows,
        )


def nyudv2(root: Path) -> None:
    """Lists of names, and a folder for each kind."""
    for split, names in (
        ("train", ["0001", "0002", "0003", "0004"]),
        ("test", ["0005", "0006"]),
    ):
        (root / "x").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            write(root / f"RGB/{name}.png", picture(name))
            write(
                root / f"Depth/{name}.npy",
                picture(name, 1).astype(np.float32) / 40 + 0.5,
            )
            write(root / f"HHA/{name}.png", picture(name + "h"))
            write(root / f"Mask_gt/{name}.png", mask())


def rgbp_glass(root: Path) -> None:
    """A folder for each split and kind; one of the broken ids is there."""
    for split, names in (
        ("train", ["20210801", "20210802", "20210803", "20210808013065"]),
        ("test", ["20210901"]),
    ):
        for name in names:
            for kind, folder in (("rgb", "image"), ("aolp", "aolp"), ("dolp", "dolp")):
                write(
                    root / f"{split}/{folder}/{name}_{kind}.tiff", picture(name + kind)
                )
            write(root / f"{split}/instance_mask/{name}_instance_mask.png", mask())


def zju_rgbp(root: Path) -> None:
    """A folder for each split and angle of the polarizer."""
    for folder, names in (("train", ["a", "b", "c"]), ("val", ["d"])):
        for name in names:
            for angle in (0, 45, 90, 135):
                write(
                    root / f"{folder}/{angle}/{name}_{angle}°.png",
                    picture(f"{name}{angle}"),
                )
            write(root / f"{folder}/label_sam/{name}.png", mask())


TREES: dict[str, Callable[[Path], None]] = {
    "ivrg-nir": ivrg_nir,
    "rgb-thermal-glass": rgb_thermal_glass,
    "nyudv2": nyudv2,
    "rgbp-glass": rgbp_glass,
    "zju-rgbp": zju_rgbp,
}


RELEASED_TEST = {
    "ivrg-nir": {"test0", "test1"},
    "rgb-thermal-glass": {"test_0", "test_1"},
    "nyudv2": {"0005", "0006"},
    "rgbp-glass": {"20210901"},
    "zju-rgbp": {"d"},
}
"""Names of the test images in each of them."""


def tree(layout: str, root: Path) -> Path:
    """Make a folder of a layout."""
    TREES[layout](root)
    return root

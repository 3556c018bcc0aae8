"""Small valid files that the cases damage: made by the tests themselves, once a folder, each kind when it is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from fuzz.seeds.images import make_images, make_masks
from fuzz.seeds.models import make_bundle, make_checkpoints, make_hf_model, make_run
from fuzz.seeds.sensors import make_exr, make_flir, make_geotiffs, make_mosaic, make_polarization
from fuzz.seeds.sets import make_bench, make_coco_set, make_documents, make_manifest_set

_MAKERS: dict[str, Callable[[Path], None]] = {
    "bench": make_bench,
    "bundle": make_bundle,
    "checkpoints": make_checkpoints,
    "coco": make_coco_set,
    "documents": make_documents,
    "exr": make_exr,
    "flir": make_flir,
    "geotiffs": make_geotiffs,
    "hf": make_hf_model,
    "images": make_images,
    "manifest": make_manifest_set,
    "masks": make_masks,
    "mosaic": make_mosaic,
    "polarization": make_polarization,
    "run": make_run,
}


class Seeds:
    """The seeds in one folder, which several processes may share.

    Args:
        root: the folder; it is made where it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: str) -> Path:
        """Return the folder of one kind of seeds, filled."""
        folder = self.root / kind
        if folder.is_dir():
            return folder
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{kind}.lock"):
            if not folder.is_dir():
                unfinished = self.root / f"{kind}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                _MAKERS[kind](unfinished)
                unfinished.rename(folder)
        return folder

    def files(self, kind: str, endings: tuple[str, ...] = ()) -> list[Path]:
        """Return the files of one kind, by name; only those that end so, where endings are given."""
        found = [path for path in self.folder(kind).iterdir() if path.is_file()]
        return sorted(path for path in found if not endings or path.suffix in endings)

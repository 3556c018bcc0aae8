"""Small valid files that the cases damage: made by the tests themselves, once a folder, each kind when it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock

from fuzz.seeds import images, models, sensors, sets, stacks, vendors


class Seeds:
    """The seeds in one folder, which several processes may share.

    Args:
        root: the folder; it is made where it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: str) -> Path:
        """Return the folder of one kind of seeds, filled by the function `make_KIND`."""
        folder = self.root / kind
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{kind}.lock"):
            if not folder.is_dir():
                unfinished = self.root / f"{kind}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make = (
                    vars(module).get(f"make_{kind}")
                    for module in (images, models, sensors, sets, stacks, vendors)
                )
                next(filter(None, make))(unfinished)
                unfinished.rename(folder)
        return folder

    def files(self, kind: str, endings: tuple[str, ...] = ()) -> list[Path]:
        """Return the files of one kind, by name; only those that end so, where endings are given."""
        found = [path for path in self.folder(kind).iterdir() if path.is_file()]
        return sorted(path for path in found if not endings or path.suffix in endings)

"""How well `simmat data check --against` finds labels that were damaged on purpose.

    python benchmarks/label_errors.py DIR [--sets NAME ...] [--seed 0] [--folds 2] [--table]

A copy of each set is made in DIR, in which 5 % of the labelled objects are damaged in each of four ways: left out,
given another class (where there are classes), shifted by 0.3 to 0.45 of their size, and joined with a neighbour to one
object. `lite` is trained at 128 px on each of the folds of the damaged labels, without the test split, for 160 steps,
or 600 where there are classes. The labels are compared with the models that did not see their images. A
suspicion finds the damage with which it shares an IoU of at least 0.3, whatever its kind; a damage is found once.

Printed are the share of the first 20 suspicions that find a damage, and the share of the damages that a list as long as
their number finds; and of each kind alone, where a suspicion must be of that kind.

DIR keeps the runs, what the models found, and a json file with the result of each set and seed; a finished part is not
done again. --table prints the results that are there. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import DATA, parser_of
from PIL import Image
from scipy import ndimage
from simmat_plugin_report.label_check import check_labels

from simmat import training
from simmat.bundle import load_bundle
from simmat.config import TrainConfig
from simmat.data.card import write_card
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.instances import Annotation, Instance, LabelArray, read_mask
from simmat.io.files import atomic_write_json
from simmat.plugins.loader import installed
from simmat.types import BoolArray

SHARE = 0.05
"""Share of the objects that are damaged in each way."""
SHIFT = (0.3, 0.45)
"""Least and most shift, as a share of the square root of an object's area."""
MAX_GAP = 1.0
"""Largest gap between two objects that are joined, as a share of the square root of the larger area."""
MATCH = 0.3
"""Least IoU of a suspicion and the damage that it finds."""
KINDS = ("missed", "class", "border", "merged")
SETS: dict[str, dict[str, Any]] = {
    "fluorescence-nuclei": {
        "modality": "gray",
        "regions": "instances",
        "min_region": 30,
    },
    "sonar-classes": {
        "modality": "gray",
        "regions": "components",
        "min_region": 60,
        "steps": 600,
    },
    "nir-crops": {
        "modality": "raster",
        "channels": "0,1",
        "regions": "components",
        "min_region": 200,
        "steps": 600,
    },
}
SETTINGS: dict[str, Any] = {
    "foundation": "lite",
    "image_size": 128,
    "steps": 160,
    "val_images": 10,
    "precision": "bf16",
    "heads": "prompt,dense",
    "keep": "last",
    "pictures": False,
}


@dataclass(frozen=True)
class Damage:
    """A label that was damaged on purpose.

    Attributes:
        kind: one of `KINDS`.
        mask: (H, W) bool, the pixels that are wrong or belong to the object that is.
    """

    sample: str
    kind: str
    mask: BoolArray


@dataclass
class Damager:
    """Damages the labels of a data set, drawn by a seed."""

    dataset: Dataset
    seed: int

    def damaged(self) -> tuple[dict[str, LabelArray], list[Damage]]:
        """Return sample id -> (H, W) damaged label image, and what was damaged."""
        rng = np.random.default_rng(self.seed)
        labels = {one.id: self.dataset.label(one) for one in self.dataset.samples}
        masks = {}
        for sample in self.dataset.samples:
            masks[sample.id] = read_mask(Path(sample.paths[-1]))
        places = []
        for name, label in labels.items():
            places += [(name, number) for number in range(len(label.regions))]
        order = [places[number] for number in rng.permutation(len(places))]
        count = round(SHARE * len(places))
        taken: set[tuple[str, int]] = set()
        damages: list[Damage] = []
        # the ways with the fewest candidates choose first
        for kind in ("merged", "border", "class", "missed"):
            done = 0
            for place in order:
                if done == count:
                    break
                if place in taken:
                    continue
                name, number = place
                wrong, used = self._damage(
                    kind, masks[name], labels[name], number, taken, name, rng
                )
                if wrong is not None:
                    damages.append(Damage(name, kind, wrong))
                    taken |= {(name, one) for one in used}
                    done += 1
        return masks, damages

    def _damage(
        self,
        kind: str,
        mask: LabelArray,
        label: Annotation,
        number: int,
        taken: set[tuple[str, int]],
        name: str,
        rng: np.random.Generator,
    ) -> tuple[BoolArray | None, tuple[int, ...]]:
        """Damage a region in `mask`; return the wrong pixels, None if it cannot be, and the regions that were used."""
        region = label.regions[number]
        own = region.mask(label.size_hw)
        if kind == "missed":
            mask[own] = 0
            return own, (number,)
        if kind == "class":
            others = self._other_classes(region)
            if not others:
                return None, ()
            mask[own] = rng.choice(others)
            return own, (number,)
        if kind == "border":
            return self._shift(mask, own, rng), (number,)
        free = []
        for place in range(len(label.regions)):
            if place != number and (name, place) not in taken:
                free.append(place)
        return self._join(mask, label, number, free)

    def _other_classes(self, region: Instance) -> list[int]:
        if region.class_id is None:
            return []
        return [one for one in self._classes() if one != region.class_id]

    def _classes(self) -> list[int]:
        found: set[int] = set()
        for sample in self.dataset.samples:
            for region in self.dataset.label(sample).regions:
                found.add(region.class_id or 0)
        return sorted(found)

    def _shift(
        self, mask: LabelArray, own: BoolArray, rng: np.random.Generator
    ) -> BoolArray | None:
        """Move an object into a random direction, where it keeps 80 % of its pixels and meets no other object."""
        value = mask[own][0]
        others = ndimage.binary_dilation((mask != 0) & ~own, np.ones((3, 3)))
        area = np.count_nonzero(own)
        distance = max(rng.uniform(*SHIFT) * area**0.5, 2)
        start = rng.uniform(0, 2 * np.pi)
        for turn in range(8):
            angle = start + turn * np.pi / 4
            dy, dx = round(distance * np.sin(angle)), round(distance * np.cos(angle))
            moved = _moved(own, dy, dx) & ~others
            if np.count_nonzero(moved) >= 0.8 * area:
                mask[own] = 0
                mask[moved] = value
                return own | moved
        return None

    def _join(
        self, mask: LabelArray, label: Annotation, number: int, free: Sequence[int]
    ) -> tuple[BoolArray | None, tuple[int, ...]]:
        """Join an object with its nearest neighbour, which gets its class; components are joined by a bridge."""
        region = label.regions[number]
        own = region.mask(label.size_hw)
        distances = ndimage.distance_transform_edt(~own)
        best = (np.inf, -1)
        for place in free:
            other = label.regions[place]
            gap = float(distances[other.mask(label.size_hw)].min())
            if gap <= MAX_GAP * max(region.area, other.area) ** 0.5:
                best = min(best, (gap, place))
        if best[1] < 0:
            return None, ()
        other = label.regions[best[1]]
        theirs = other.mask(label.size_hw)
        value = mask[own][0]
        joined = own | theirs
        if self.dataset.card.regions == "components":
            radius = max(min(region.area, other.area) ** 0.5 / 8, 1)
            start = _nearest(theirs, distances)
            end = _nearest(own, ndimage.distance_transform_edt(~theirs))
            bridge = _line(mask.shape, start, end, radius)
            joined |= bridge & (mask == 0)
        mask[joined] = value
        return joined, (number, best[1])


def _moved(mask: BoolArray, dy: int, dx: int) -> BoolArray:
    moved: BoolArray = ndimage.shift(mask.astype(np.uint8), (dy, dx), order=0) > 0
    return moved


def _nearest(mask: BoolArray, distances: np.ndarray) -> tuple[int, int]:
    """Return (row, column) of the pixel of a mask with the smallest distance."""
    rows, columns = np.nonzero(mask)
    place = int(np.argmin(distances[rows, columns]))
    return int(rows[place]), int(columns[place])


def _line(
    size_hw: tuple[int, ...],
    start: tuple[int, int],
    end: tuple[int, int],
    radius: float,
) -> BoolArray:
    """Return the pixels within a distance of the line between two pixels."""
    count = max(abs(start[0] - end[0]), abs(start[1] - end[1])) + 1
    rows = np.linspace(start[0], end[0], count).round().astype(int)
    columns = np.linspace(start[1], end[1], count).round().astype(int)
    clear = np.ones(size_hw, bool)
    clear[rows, columns] = False
    line: BoolArray = ndimage.distance_transform_edt(clear) <= radius
    return line


def original(name: str, folder: Path = DATA) -> Dataset:
    """Open a set as it is."""
    config = TrainConfig(**SETS[name], data=folder / name, out=folder / "unused")
    return training.open_data(config, installed())


def write_damaged(
    dataset: Dataset, masks: Mapping[str, LabelArray], folder: Path
) -> None:
    """Write the data set with other masks to a folder, once."""
    if (folder / "card.toml").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    lines = ["id,image,mask,split"]
    for sample in dataset.samples:
        (image,) = sample.files.values()
        shutil.copy(image, folder / "images" / image.name)
        mask = f"masks/{image.stem}.png"
        Image.fromarray(masks[sample.id].astype(np.uint16)).save(folder / mask)
        lines.append(f"{sample.id},images/{image.name},{mask},{sample.split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    write_card(folder, dataset.card)


def train_folds(name: str, data: Path, runs: Path, folds: int) -> list[Path]:
    """Train the folds that are not trained yet; return their folders."""
    found = []
    for number in range(1, folds + 1):
        out = runs / f"fold-{number}"
        done = runs / f"fold-{number}.done"
        if not done.exists():
            shutil.rmtree(out, ignore_errors=True)
            settings = {**SETTINGS, **SETS[name]}
            config = TrainConfig(
                **settings,
                val_every=settings["steps"],
                data=data,
                out=out,
                fold=f"{number}/{folds}",
            )
            training.train(config, installed())
            done.touch()
        found.append(out)
    return found


def judge(
    data: Path, runs: Sequence[Path], damages: Sequence[Damage]
) -> dict[str, Any]:
    """Compare the labels with the runs, and return which suspicions found a damage, most suspected first."""
    registry = installed()
    bundles = [load_bundle(run, registry) for run in runs]
    dataset = open_dataset(data, bundles[0].modality)
    start = time.perf_counter()
    checked = check_labels(dataset, bundles, dataset.samples)
    seconds = time.perf_counter() - start
    left = dict(enumerate(damages))
    rows = []
    for one, ranked in zip(checked.report.suspicions, checked.ranked, strict=True):
        best = (MATCH, -1)
        for place, damage in left.items():
            if damage.sample == one.sample:
                best = max(best, (_iou(ranked.suspicion.place, damage.mask), place))
        found = left.pop(best[1], None)
        rows.append(
            {
                "sample": one.sample,
                "kind": one.kind,
                "score": one.score,
                "damage": None if found is None else found.kind,
            }
        )
    counts = {kind: sum(one.kind == kind for one in damages) for kind in KINDS}
    return {"damages": counts, "seconds": seconds, "suspicions": rows}


def _iou(place: Instance, mask: BoolArray) -> float:
    shared = np.count_nonzero(mask[place.window.slices] & place.crop)
    return float(shared / (np.count_nonzero(mask) + place.area - shared))


def figures(result: Mapping[str, Any], kind: str | None = None) -> tuple[float, ...]:
    """Return the number of damages, the precision of the first 20, and the recall at the length of the list."""
    rows = result["suspicions"]
    count = sum(result["damages"].values())
    hits = [row["damage"] is not None for row in rows]
    if kind is not None:
        count = result["damages"][kind]
        hits = [row["damage"] == kind for row in rows if row["kind"] == kind]
    first = min(20, count)
    return count, sum(hits[:first]) / max(first, 1), sum(hits[:count]) / max(count, 1)


def main() -> None:
    """Run what the command line says."""
    parser = parser_of(__doc__)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    print("| set | kind | damages | precision of the first 20 | found |")
    print("|---|---|---|---|---|")
    for name in arguments.sets:
        root = arguments.dir / f"{name}-{arguments.seed}"
        file = arguments.dir / f"{name}-{arguments.seed}.json"
        if not file.exists() and not arguments.table:
            dataset = original(name, arguments.data)
            masks, damages = Damager(dataset, arguments.seed).damaged()
            write_damaged(dataset, masks, root / "data")
            runs = train_folds(name, root / "data", root, arguments.folds)
            atomic_write_json(file, judge(root / "data", runs, damages))
        if not file.exists():
            continue
        result = json.loads(file.read_text())
        for kind in (None, *KINDS):
            count, precision, recall = figures(result, kind)
            if count:
                print(
                    f"| {name} | {kind or 'any'} | {count} | {precision:.2f} | {recall:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

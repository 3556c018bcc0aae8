"""Which images to label next: ways to choose them, compared with a random order by the score per number of labels.

    OMP_NUM_THREADS=1 python benchmarks/next_label.py DIR [--sets NAME ...] [--ways NAME ...] [--orders 0 1 2 3 4]
        [--table]

For each set, the train split is what may be labelled, and the val split is the truth; the test split is not read. Each
way chooses 5 images, then adds to them up to 10, 20 and 40; after each choice `lite` at 128 px is trained anew on all
of them, for 100 steps, and scored by the mean of one-click mIoU, AP50 of every object and class mIoU.

* `random`: a random order.
* `typical`: the images are divided into as many clusters of their embedding (untuned `lite`, mean and spread over the
  image) as labels are asked for, and of each cluster without a label the image at its centre is chosen (TypiClust).
* `coreset`: always the image farthest from all that are chosen (k-center greedy).
* `unsure`: 5 at random; then those in which the model trained so far expects most wrong objects (`Next unsure`).
* `views`: 10 as `typical` does; then, of as many clusters of the others as images are asked for, that one each about
  which the model disagrees most with itself over mirror images.

What is done is kept in DIR, a json file for each set, way and order. --table prints the scores and the labels that a
way needs for the score of a random order, as a share of those of the random order.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from few_labels import Case, case_of, sets
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

import simmat
from simmat.data.samples import Sample, id_digest
from simmat.io.files import atomic_write_json
from simmat.predictor import Predictor
from simmat.types import SensorImage

SETS = ("thermal-udder", "sonar-objects", "fluorescence-nuclei")
BUDGETS = (5, 10, 20, 40)
STEPS = 100
TYPICAL_FIRST = 10
"""Images that `views` chooses as `typical` does."""
SIDE_PX = 128

Floats = npt.NDArray[np.floating[Any]]


@dataclass
class Pool:
    """The images that may be labelled, and which of them are.

    Attributes:
        samples: N images.
        embeddings: (N, D), scaled to mean 0 and spread 1.
        order: seed of what is drawn.
        chosen: positions of the labelled ones, in the order of labelling.
    """

    samples: Sequence[Sample]
    embeddings: Floats
    order: int
    chosen: list[int] = field(default_factory=list)

    @property
    def rest(self) -> list[int]:
        """The positions of the unlabelled ones."""
        return [i for i in range(len(self.samples)) if i not in self.chosen]

    def clusters(self, positions: Sequence[int], count: int) -> list[list[int]]:
        """Return clusters of some images, each sorted by the distance to its centre."""
        points = self.embeddings[positions]
        centres, members = kmeans2(
            points, count, minit="++", rng=np.random.default_rng(self.order)
        )
        distances = np.linalg.norm(points - centres[members], axis=1)
        found: list[list[int]] = [[] for _ in range(count)]
        for i in np.argsort(distances):
            found[members[i]].append(positions[i])
        return [cluster for cluster in found if cluster]

    def drawn(self) -> list[int]:
        """Return the unlabelled ones in a random order."""

        def digest(i: int) -> bytes:
            return id_digest(f"{self.order}/{self.samples[i].id}")

        return sorted(self.rest, key=digest)


Choice = Callable[[Pool, int, Predictor | None], Sequence[int]]
"""Which images to add, best first: the pool, how many labels there will be, and the model trained on those so far."""


def choose_random(pool: Pool, count: int, model: Predictor | None) -> Sequence[int]:
    """Return a random order."""
    return pool.drawn()


def choose_typical(pool: Pool, count: int, model: Predictor | None) -> Sequence[int]:
    """Return the centre of each cluster without a label, of large clusters first."""
    everyone = range(len(pool.samples))
    clusters = sorted(pool.clusters(everyone, count), key=len, reverse=True)
    labelled = set(pool.chosen)
    centres = [one[0] for one in clusters if labelled.isdisjoint(one)]
    return centres + [i for i in pool.drawn() if i not in centres]


def choose_coreset(pool: Pool, count: int, model: Predictor | None) -> Sequence[int]:
    """Return, again and again, the image farthest from all that are chosen."""
    chosen = list(pool.chosen) or pool.drawn()[:1]
    added = chosen[len(pool.chosen) :]
    while len(chosen) < count:
        distances = cdist(pool.embeddings, pool.embeddings[chosen]).min(1)
        distances[chosen] = -1
        farthest = int(distances.argmax())
        chosen.append(farthest)
        added.append(farthest)
    return added


def choose_unsure(pool: Pool, count: int, model: Predictor | None) -> Sequence[int]:
    """Return the images with most expected wrong objects first."""
    if model is None:
        return pool.drawn()
    wrong = {}
    for i in pool.rest:
        model.set_image(pool.samples[i].files)
        wrong[i] = 0.0
        for one in model.segment_everything():
            chance = 1.0 if one.class_probability is None else one.class_probability
            wrong[i] += 1 - one.score * chance
    return sorted(wrong, key=wrong.__getitem__, reverse=True)


def choose_views(pool: Pool, count: int, model: Predictor | None) -> Sequence[int]:
    """Return the image of each cluster about which mirror images disagree most."""
    if model is None or count <= TYPICAL_FIRST:
        return choose_typical(pool, count, model)
    doubt = {i: disagreement(model, pool.samples[i]) for i in pool.rest}
    most_doubtful = []
    for cluster in pool.clusters(pool.rest, count - len(pool.chosen)):
        most_doubtful.append(max(cluster, key=doubt.__getitem__))
    others = sorted(set(pool.rest) - set(most_doubtful), key=doubt.__getitem__)
    return most_doubtful + others[::-1]


WAYS: Mapping[str, Choice] = {
    "random": choose_random,
    "typical": choose_typical,
    "coreset": choose_coreset,
    "unsure": choose_unsure,
    "views": choose_views,
}


def disagreement(model: Predictor, sample: Sample) -> float:
    """Return how much class probabilities differ between an image and its two mirror images, per pixel of an object."""
    image = model.set_image(sample.files)
    views = [class_probabilities(model, image)]
    for axis in (1, 2):
        mirrored = replace(
            image,
            data=np.ascontiguousarray(np.flip(image.data, axis)),
            valid=np.ascontiguousarray(np.flip(image.valid, axis)),
            georeference=None,
        )
        views.append(np.flip(class_probabilities(model, mirrored), axis))
    stack = np.stack(views)  # (3, K, H, W)
    spread = stack.std(0).sum(0)
    objects = 1 - stack.mean(0)[0]  # index 0 is background
    return float((spread * objects).sum() / (objects.sum() + 1))


def class_probabilities(model: Predictor, image: SensorImage) -> Floats:
    """Return the (K, H, W) class probabilities of an image."""
    model.set_image(image)
    found = model.segment_semantic(probabilities=True).probabilities
    assert found is not None
    return found


def embed(samples: Sequence[Sample], modality: str, channels: str | None) -> Floats:
    """Return the (N, D) embeddings of images by the untuned network: mean and spread of each of its channels."""
    model = simmat.load(
        foundation="lite",
        modality=modality,
        channels=channels,
        image_size=SIDE_PX,
        device="cpu",
    )
    rows = []
    for sample in samples:
        image = model.open_image(sample.files)
        _, encoded = image.encode_window(image.windows[0], keep=False)
        assert encoded is not None
        parts = []
        for level in encoded.embedding.levels:
            parts += [level[0].mean((1, 2)), level[0].std((1, 2))]
        rows.append(np.concatenate([part.numpy() for part in parts]))
    found = np.stack(rows)
    return (found - found.mean(0)) / (found.std(0) + 1e-6)


def measure(case: Case, pool: Pool, choose: Choice) -> dict[str, Any]:
    """Choose, train and score for each number of labels."""
    scores = {}
    model: Predictor | None = None
    for budget in BUDGETS:
        wanted = min(budget, len(pool.samples))
        added = list(choose(pool, wanted, model))
        pool.chosen += added[: wanted - len(pool.chosen)]
        labels = [pool.samples[i] for i in pool.chosen]
        now = replace(case, labels=labels)
        with tempfile.TemporaryDirectory() as root:
            watch, folder = now.train(Path(root), case.truth[:1], steps=STEPS)
            last = watch.weights[max(watch.weights)]
            scores[str(budget)] = now.judge(folder, {"last": last})["last"]
            model = simmat.load(folder.bundle)
    names = [pool.samples[i].id for i in pool.chosen]
    return {"scores": scores, "chosen": names}


def labels_for(score: float, curve: Mapping[str, float]) -> float | None:
    """Return how many labels reach a score, between budgets in proportion; None if none does."""
    budgets = sorted(map(int, curve))
    before, reached = budgets[0], curve[str(budgets[0])]
    if reached >= score:
        return before
    for budget in budgets[1:]:
        now = max(reached, curve[str(budget)])
        if now >= score:
            return before + (budget - before) * (score - reached) / (now - reached)
        before, reached = budget, now
    return None


def table(folder: Path, given: argparse.Namespace) -> None:
    """Print, for each set and way, the mean scores, and the share of labels that random's scores need."""
    budgets = " | ".join(f"{budget} labels" for budget in BUDGETS)
    print(f"| set | way | orders | {budgets} | labels for random's score at 20 |")
    print("|---|---|---|" + "---|" * (len(BUDGETS) + 1))
    for name in given.sets:
        means = {}
        for way in given.ways:
            files = [folder / f"{name}-{way}-{order}.json" for order in given.orders]
            runs = [
                json.loads(file.read_text())["scores"]
                for file in files
                if file.exists()
            ]
            if runs:
                means[way] = {
                    str(budget): fmean(run[str(budget)]["score"] for run in runs)
                    for budget in BUDGETS
                }
                cells = [f"{means[way][str(budget)]:.3f}" for budget in BUDGETS]
                needed = None
                if "random" in means:
                    needed = labels_for(means["random"]["20"], means[way])
                cells.append("not reached" if needed is None else f"{needed:.0f}")
                print(f"| {name} | {way} | {len(runs)} | {' | '.join(cells)} |")


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(sets()))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--orders", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        table(given.dir, given)
        return
    given.dir.mkdir(parents=True, exist_ok=True)
    for order in given.orders:
        for name in given.sets:
            whole = case_of(sets()[name], labels=10**6, draw=0)
            labelled = whole.dataset.samples
            pool = [
                one
                for one in labelled
                if one.split == "train" and whole.dataset.label(one).regions
            ]
            truth = [one for one in labelled if one.split == "val"]
            case = replace(whole, labels=pool, truth=truth)
            embeddings = None
            for way in given.ways:
                file = given.dir / f"{name}-{way}-{order}.json"
                if file.exists():
                    continue
                if embeddings is None:
                    modality = case.settings["modality"]
                    embeddings = embed(pool, modality, case.settings.get("channels"))
                done = measure(case, Pool(pool, embeddings, order), WAYS[way])
                atomic_write_json(file, done)
                print(file.name, flush=True)


if __name__ == "__main__":
    main()

"""Which images to label next: ways to choose them, compared with a random order by the score per number of labels.

    OMP_NUM_THREADS=1 python benchmarks/next_label.py DIR [--sets NAME ...] [--ways NAME ...] [--orders 0 1 2 3 4]
        [--table]

For each set, the train split is what may be labelled, and the val split is the truth; the test split is not read. Each
way chooses 5 images, then adds to them up to 40. After each choice a linear probe is fitted anew to all of them: the
logistic regression of object or background in each cell of the embedding of untuned `lite` at 128 px, all its levels
joined, with the threshold that is best on the chosen images. Its score is the mean over the images of the truth of the
IoU of objects. A probe takes a second, where a training takes minutes, so every order can be measured.

* `random`: a random order.
* `typical`: the images are divided into as many clusters of their embedding (mean and spread over the image) as labels
  are asked for, and of each cluster without a label the image at its centre is chosen (TypiClust, Hacohen et al. 2022).
* `coreset`: always the image farthest from all that are chosen (k-center greedy, Sener and Savarese 2018).
* `unsure`: 5 at random; then those with the largest entropy of the probe's answer.
* `views`: 10 as `typical` does; then, of as many clusters of the others as images are asked for, that one each about
  which the probe disagrees most with itself over mirror images.

What is done is kept in DIR, a json file for each set, way and order. --table prints the scores, and how many labels a
way needs for the score that a random order has with 20.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from few_labels import case_of, sets
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist
from torch.nn import functional

import simmat
from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, id_digest
from simmat.io.files import atomic_write_json
from simmat.predictor import Predictor
from simmat.types import BoolArray, SensorImage

SETS = ("thermal-udder", "sonar-objects", "fluorescence-nuclei")
BUDGETS = (5, 7, 10, 14, 20, 28, 40)
TYPICAL_FIRST = 10
"""Images that `views` chooses as `typical` does."""
SIDE_PX = 128
DECAY = 1e-3
"""Weight of the squared weights of a probe."""
THRESHOLDS = np.linspace(0.05, 0.95, 19)

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Cells:
    """An image as cells of its embedding.

    Attributes:
        features: (P, D), of P cells.
        mirrored: (P, D), those of the mirror image for the same cells.
        inside: (P,) whether more than half of a cell is of objects.
    """

    features: Floats
    mirrored: Floats
    inside: BoolArray


@dataclass(frozen=True)
class Probe:
    """A linear classifier of cells.

    Attributes:
        weights: (D + 1,), the last one is the constant.
        threshold: probability from which a cell is one of an object.
    """

    weights: Floats
    threshold: float

    def probability(self, features: Floats) -> Floats:
        """Return the (P,) probabilities of (P, D) cells."""
        logits = features @ self.weights[:-1] + self.weights[-1]
        chances: Floats = 1 / (1 + np.exp(-logits))
        return chances

    def score(self, image: Cells) -> float:
        """Return the IoU of objects."""
        return _iou(self.probability(image.features) >= self.threshold, image.inside)


@dataclass
class Pool:
    """The images that may be labelled, and which of them are.

    Attributes:
        samples: N images.
        cells: what is in each.
        embeddings: (N, 2 D), scaled to mean 0 and spread 1.
        order: seed of what is drawn.
        chosen: positions of the labelled ones, in the order of labelling.
    """

    samples: Sequence[Sample]
    cells: Sequence[Cells]
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


Choice = Callable[[Pool, int, Probe | None], Sequence[int]]
"""Which images to add, best first: the pool, how many labels there will be, and the probe of those so far."""


def choose_random(pool: Pool, count: int, probe: Probe | None) -> Sequence[int]:
    """Return a random order."""
    return pool.drawn()


def choose_typical(pool: Pool, count: int, probe: Probe | None) -> Sequence[int]:
    """Return the centre of each cluster without a label, of large clusters first."""
    everyone = range(len(pool.samples))
    clusters = sorted(pool.clusters(everyone, count), key=len, reverse=True)
    labelled = set(pool.chosen)
    centres = [one[0] for one in clusters if labelled.isdisjoint(one)]
    return centres + [i for i in pool.drawn() if i not in centres]


def choose_coreset(pool: Pool, count: int, probe: Probe | None) -> Sequence[int]:
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


def choose_unsure(pool: Pool, count: int, probe: Probe | None) -> Sequence[int]:
    """Return the images with the largest mean entropy first."""
    if probe is None:
        return pool.drawn()
    entropy = {}
    for i in pool.rest:
        chances = np.clip(probe.probability(pool.cells[i].features), 1e-6, 1 - 1e-6)
        surprise = chances * np.log(chances) + (1 - chances) * np.log(1 - chances)
        entropy[i] = -float(surprise.mean())
    return sorted(entropy, key=entropy.__getitem__, reverse=True)


def choose_views(pool: Pool, count: int, probe: Probe | None) -> Sequence[int]:
    """Return the image of each cluster about which mirror images disagree most."""
    if probe is None or count <= TYPICAL_FIRST:
        return choose_typical(pool, count, probe)
    doubt = {i: disagreement(probe, pool.cells[i]) for i in pool.rest}
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


def disagreement(probe: Probe, image: Cells) -> float:
    """Return how much the answers to an image and to its mirror image differ, per cell of an object."""
    plain = probe.probability(image.features)
    mirrored = probe.probability(image.mirrored)
    return float(np.abs(plain - mirrored).sum() / ((plain + mirrored).sum() / 2 + 1))


def fit(images: Sequence[Cells]) -> Probe:
    """Fit a probe to labelled images."""
    features = np.concatenate([one.features for one in images])
    inside = np.concatenate([one.inside for one in images])
    inputs = functional.pad(torch.from_numpy(features).float(), (0, 1), value=1.0)
    targets = torch.from_numpy(inside).float()
    weights = torch.zeros(inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=100, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        wrong = functional.binary_cross_entropy_with_logits(inputs @ weights, targets)
        total = wrong + DECAY * weights[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total.item()

    optimizer.step(loss)
    found = Probe(weights.detach().numpy(), 0.5)
    chances = found.probability(features)
    scores = [_iou(chances >= threshold, inside) for threshold in THRESHOLDS]
    return replace(found, threshold=float(THRESHOLDS[int(np.argmax(scores))]))


def _iou(answer: BoolArray, truth: BoolArray) -> float:
    shared = np.count_nonzero(answer & truth)
    return shared / max(np.count_nonzero(answer | truth), 1)


def read_cells(dataset: Dataset, sample: Sample, model: Predictor) -> Cells:
    """Encode an image and its mirror image."""
    image = model.set_image(sample.files)
    mirror = replace(
        image,
        data=np.ascontiguousarray(np.flip(image.data, 2)),
        valid=np.ascontiguousarray(np.flip(image.valid, 2)),
        georeference=None,
    )
    plain = encode(model, image)
    mirrored = np.flip(encode(model, mirror), 2)
    objects = np.zeros(image.valid.shape[1:], bool)
    for region in dataset.label(sample).regions:
        objects |= region.mask(objects.shape)
    height, width = plain.shape[1:]
    shares = Image.fromarray(objects).convert("L").resize((width, height), Image.BOX)
    return Cells(_rows(plain), _rows(mirrored), np.asarray(shares).ravel() > 127)


def encode(model: Predictor, image: SensorImage) -> Floats:
    """Return the (D, h, w) embedding of an image, without its padding, of all levels on the grid of the finest."""
    opened = model.open_image(image, tile=max(image.valid.shape[1:]))
    (window,) = opened.windows
    _, encoded = opened.encode_window(window, keep=False)
    assert encoded is not None
    levels, strides = encoded.embedding.levels, encoded.embedding.strides
    grid = levels[0].shape[2:]
    parts = [functional.interpolate(level, grid, mode="bilinear") for level in levels]
    height, width = encoded.prepared.letterbox.scaled_hw
    rows, columns = round(height / strides[0]), round(width / strides[0])
    found: Floats = torch.cat(parts, 1)[0, :, :rows, :columns].numpy()
    return found


def _rows(planes: Floats) -> Floats:
    return np.ascontiguousarray(planes.reshape(len(planes), -1).T)


def scaled(images: Sequence[Cells], by: Sequence[Cells]) -> list[Cells]:
    """Return images with features of mean 0 and spread 1 over the cells of others."""
    features = np.concatenate([one.features for one in by])
    mean, spread = features.mean(0), features.std(0) + 1e-6
    found = []
    for one in images:
        own = (one.features - mean) / spread
        mirrored = (one.mirrored - mean) / spread
        found.append(Cells(own, mirrored, one.inside))
    return found


def embed(images: Sequence[Cells]) -> Floats:
    """Return the (N, 2 D) embeddings of N images: mean and spread of each feature."""
    rows = []
    for one in images:
        rows.append(np.concatenate([one.features.mean(0), one.features.std(0)]))
    found = np.stack(rows)
    return (found - found.mean(0)) / (found.std(0) + 1e-6)


def measure(pool: Pool, truth: Sequence[Cells], choose: Choice) -> dict[str, Any]:
    """Choose, fit and score for each number of labels."""
    scores = {}
    probe: Probe | None = None
    for budget in BUDGETS:
        wanted = min(budget, len(pool.samples))
        added = list(choose(pool, wanted, probe))
        pool.chosen += added[: wanted - len(pool.chosen)]
        probe = fit([pool.cells[i] for i in pool.chosen])
        scores[str(budget)] = fmean(probe.score(one) for one in truth)
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
    """Print the mean scores of each set and way, and the labels that random's score at 20 needs."""
    budgets = " | ".join(f"{budget} labels" for budget in BUDGETS)
    print(f"| set | way | orders | {budgets} | labels for random's score at 20 |")
    print("|---|---|---|" + "---|" * (len(BUDGETS) + 1))
    for name in given.sets:
        means = {}
        for way in given.ways:
            files = [folder / f"{name}-{way}-{order}.json" for order in given.orders]
            runs = []
            for file in files:
                if file.exists():
                    runs.append(json.loads(file.read_text())["scores"])
            if not runs:
                continue
            means[way] = {
                budget: fmean(run[budget] for run in runs) for budget in runs[0]
            }
            cells = [f"{score:.3f}" for score in means[way].values()]
            needed = None
            if "random" in means:
                needed = labels_for(means["random"]["20"], means[way])
            cells.append("not reached" if needed is None else f"{needed:.0f}")
            print(f"| {name} | {way} | {len(runs)} | {' | '.join(cells)} |")


def measure_set(name: str, folder: Path, given: argparse.Namespace) -> None:
    """Measure the ways and orders of a set that are not measured yet."""
    case = case_of(sets()[name], labels=10**6, draw=0)
    model = simmat.load(
        foundation="lite",
        modality=case.settings["modality"],
        channels=case.settings.get("channels"),
        image_size=SIDE_PX,
        device="cpu",
    )
    labelled = []
    for sample in case.dataset.samples:
        if case.dataset.label(sample).regions:
            labelled.append(sample)
    samples = [one for one in labelled if one.split == "train"]
    pool = [read_cells(case.dataset, one, model) for one in samples]
    truth = []
    for sample in labelled:
        if sample.split == "val":
            truth.append(read_cells(case.dataset, sample, model))
    truth = scaled(truth, pool)
    pool = scaled(pool, pool)
    embeddings = embed(pool)
    for order in given.orders:
        for way in given.ways:
            file = folder / f"{name}-{way}-{order}.json"
            if not file.exists():
                done = measure(Pool(samples, pool, embeddings, order), truth, WAYS[way])
                atomic_write_json(file, done)
                print(file.name, flush=True)


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
    given.dir.mkdir(parents=True, exist_ok=True)
    for name in () if given.table else given.sets:
        measure_set(name, given.dir, given)
    table(given.dir, given)


if __name__ == "__main__":
    main()

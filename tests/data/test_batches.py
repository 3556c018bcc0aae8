"""Training items: what is asked, where, and that it depends on the position in the run alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import config, gray_set, registry
from scipy import ndimage

from simmat.data.batches import TrainingItems, sample_at
from simmat.data.dataset import Dataset, Sample
from simmat.nn.losses import Batch, Loss, Outputs
from simmat.training.plan import plan_run
from simmat.types import SensorImage


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> TrainingItems:
    root = tmp_path_factory.mktemp("batches")
    settings = config(gray_set(root / "set"), root / "run", prompts_per_image=3)
    return plan_run(settings, registry()).items()


def test_an_item_depends_on_its_position_alone(items: TrainingItems) -> None:
    """A resumed run starts in the middle, and must see what it would have seen."""
    first = [items[position] for position in (3, 4, 5)]
    again = [items[position] for position in (5, 3, 4)]
    for one, two in zip(first, [again[1], again[2], again[0]], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(items[3].planes, items[3 + len(items.samples)].planes)


def test_what_a_loss_knows_of_whole_images_stays_in_place(tmp_path: Path) -> None:
    """The image may change its values, but not its place, or a teacher's embedding would lie beside it."""
    settings = config(gray_set(tmp_path / "set"), tmp_path / "run", prompts_per_image=3)
    moving = plan_run(settings, registry(), loss=OfName()).items()
    plain = plan_run(settings.model_copy(update={"augment": False}), registry()).items()
    for position in range(2 * len(plain.samples)):
        one, whole = moving[position], plain[position]
        assert one.extra.tolist() == [
            len(plain.samples[sample_at(position, len(plain.samples), plain.seed)].id)
        ]
        assert torch.equal(one.content, whole.content)
        assert torch.equal(one.targets.any(0), whole.targets.any(0))
        assert not torch.equal(one.planes, whole.planes)


class OfName(Loss):
    """Has a target for each sample."""

    whole_images = True

    def item(self, sample_id: str) -> torch.Tensor:
        return torch.tensor([len(sample_id)])

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, torch.Tensor]:
        raise AssertionError("nothing is computed")


def test_items_of_images_in_memory_are_equal(
    items: TrainingItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeping them saves time and nothing else."""
    size = 4 * 40 * 56  # of an image in float32
    positions = [*range(10), *range(10)]  # each of the five images four times
    read_each_time = [items[position] for position in positions]
    reads: list[str] = []
    real = Dataset.image

    def watched(dataset: Dataset, sample: Sample) -> SensorImage:
        reads.append(sample.id)
        return real(dataset, sample)

    monkeypatch.setattr(Dataset, "image", watched)
    for room, expected_reads in ((5 * size, 5 + 3), (100 * size, 5)):
        reads.clear()
        remembering = replace(items, image_bytes=room)
        for position, read in zip(positions, read_each_time, strict=True):
            assert all(
                torch.equal(one, two)
                for one, two in zip(remembering[position], read, strict=True)
            )
        assert len(reads) == expected_reads


def test_every_prompt_points_at_its_region(items: TrainingItems) -> None:
    """A click beside its target would teach the opposite."""
    for position in range(6):
        item = items[position]
        for target, (x, y), box in zip(
            item.targets, item.clicks.tolist(), item.boxes, strict=True
        ):
            assert target[int(y), int(x)]
            rows, columns = target.nonzero().T
            assert box[0] <= columns.float().mean() <= box[2]
            assert box[1] <= rows.float().mean() <= box[3]


def test_all_items_of_a_step_have_the_same_kind_of_prompt(items: TrainingItems) -> None:
    """Two processes that ask differently in one step would not train as one."""
    draws = [float(items[position].step_draw) for position in range(6)]
    assert draws[0] == draws[1] != draws[2] == draws[3] != draws[4]


@pytest.mark.parametrize("clicks", ["mixed", "random"])
def test_clicks_fall_where_something_was_measured(tmp_path: Path, clicks: str) -> None:
    """The loss looks at nothing there, and scoring clicks on what is seen, too: of each disc only the rim is."""
    data = gray_set(tmp_path / "set")
    for path in (data / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        core = ndimage.binary_erosion(mask > 0, iterations=3)
        Image.fromarray(np.where(core, 0, 100 + 50 * (mask > 0)).astype(np.uint8)).save(
            data / "images" / path.name
        )
    settings = config(data, tmp_path / "run", clicks=clicks, nodata=0)
    rims = plan_run(settings, registry()).items()
    hidden = [
        item.ignore[int(y), int(x)] or not target[int(y), int(x)]
        for item in (rims[position] for position in range(10))
        for target, (x, y) in zip(item.targets, item.clicks.tolist(), strict=True)
        if (target & ~item.ignore).any()
    ]
    assert len(hidden) > 10
    assert not any(hidden)

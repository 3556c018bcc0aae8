"""Two cameras with pixel grids of their own: labelled on that of the first, as the data card or a bundle states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotate_server import square
from bundles import tiny_bundle
from PIL import Image
from simmat_plugin_annotate.commands import annotate
from simmat_plugin_annotate.masks import MaskDocument
from simmat_plugin_annotate.planes import ImageCache, Planes

from simmat.data.card import DataCard, load_card
from simmat.data.dataset import open_dataset
from simmat.errors import DataError
from simmat.plugins.loader import installed
from simmat.sensors.adapter import with_data_card
from simmat.sensors.normalize import Statistics

pytestmark = pytest.mark.usefixtures("started")

HALF = [[0.5, 0.0, 2.0], [0.0, 0.5, 3.0], [0.0, 0.0, 1.0]]
"""From pixels of `rgb` to those of `gray`, which has half the resolution and sees less."""
ALIGNED = f"""[alignment.gray]
reference = "rgb"
matrix = {HALF}
reference_size = [60, 40]
size = [40, 30]
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder of `rgb+gray` of different sizes, without a card; gray is 4 * column."""
    root = tmp_path / "pairs"
    for source in ("rgb", "gray"):
        (root / "images" / source).mkdir(parents=True)
    colours = np.full((40, 60, 3), 90, np.uint8)
    colours[10:20, 10:20] = 200
    ramp = np.tile(4 * np.arange(40, dtype=np.uint8), (30, 1))
    Image.fromarray(colours).save(root / "images/rgb/a.png")
    Image.fromarray(ramp).save(root / "images/gray/a.png")
    return root


def bundle_of_pairs(folder: Path, card: DataCard) -> Path:
    """Save a bundle of `rgb+gray` with a data card."""
    adapter = installed().modality("rgb+gray", None)
    channels = adapter.channels
    return tiny_bundle(
        folder,
        modality="rgb+gray",
        sensor_channels=channels,
        channels=tuple(one.with_statistics(60.0, 20.0) for one in channels),
        statistics=Statistics((60.0,) * 4, (20.0,) * 4, ((1.0,) * 4,) * 4, (1000,) * 4),
        zero_shot=((0.25,) * 4,) * 3,
        card=card,
    )


def test_masks_are_on_the_grid_of_the_first_sensor(
    pairs: Path, tmp_path: Path, started: list[Any]
) -> None:
    """Mask, values and training agree on the grid of the folder, though files and the bundle's rig have others."""
    (pairs / "card.toml").write_text(f'regions = "instances"\n{ALIGNED}')
    moved = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
    other = {"gray": {"reference": "rgb", "matrix": moved}}
    card = DataCard.model_validate({"regions": "instances", "alignment": other})
    bundle = bundle_of_pairs(tmp_path / "bundle", card)
    annotate.main([str(pairs), "--bundle", str(bundle)], standalone_mode=False)
    (annotator,) = started
    (key,) = annotator.folder.images
    document = annotator.image_document(key)
    assert document["size_hw"] == [40, 60]
    assert document["sensors"] == [
        {"name": "rgb", "channels": [0, 1, 2]},
        {"name": "gray", "channels": [3]},
    ]
    mask = MaskDocument.model_validate(square(10, 10, 20, 20))
    labels = annotator.folder.labels(key)
    labels.edit(0, lambda draft: draft.add(mask, None, "keep"))
    assert np.asarray(Image.open(pairs / "masks/a.png")).shape == (40, 60)
    measured = annotator.measured(key).document(3, [1])
    (_, mean, *_) = measured["rows"][0]
    # 4 * (x / 2 + 2) over x = 10 … 19
    assert mean == pytest.approx(4 * (14.5 / 2 + 2), abs=1e-5)
    dataset = open_dataset(pairs, annotator.folder.adapter)
    assert len(dataset.samples) == 1
    alignment = load_card(pairs, {}).alignment["gray"]
    assert (alignment.size, alignment.matrix[0][2]) == ((40, 30), 2.0)
    assert annotator.folder.adapter.alignments["gray"].matrix[0][2] == 2.0


def test_a_bundle_brings_the_alignment_of_its_rig(
    pairs: Path, tmp_path: Path, started: list[Any]
) -> None:
    """The folder has none; a training from the page needs it as well, so the card says it with the first mask."""
    aligned = DataCard.model_validate(
        {
            "regions": "instances",
            "alignment": {"gray": {"reference": "rgb", "matrix": HALF}},
        }
    )
    bundle = bundle_of_pairs(tmp_path / "bundle", aligned)
    annotate.main([str(pairs), "--bundle", str(bundle)], standalone_mode=False)
    (annotator,) = started
    (key,) = annotator.folder.images
    assert annotator.image_document(key)["size_hw"] == [40, 60]
    assert not (pairs / "card.toml").exists()
    annotator.folder.write_card()
    assert load_card(pairs, {}).alignment == aligned.alignment


def test_without_an_alignment_the_image_says_what_to_do(
    pairs: Path, tmp_path: Path, started: list[Any]
) -> None:
    """The list of images shows it; nothing is written."""
    bundle = bundle_of_pairs(tmp_path / "bundle", DataCard(regions="instances"))
    annotate.main([str(pairs), "--bundle", str(bundle)], standalone_mode=False)
    (annotator,) = started
    (key,) = annotator.folder.images
    with pytest.raises(DataError, match="simmat align"):
        annotator.image_document(key)
    assert "simmat align" in annotator.images_document()[0]["problem"]


def test_another_alignment_is_another_image(pairs: Path, tmp_path: Path) -> None:
    """Tiles of the browser and of the disk are kept by the digest; those of the old matrix would lie beside."""
    sensor = installed().modality("rgb+gray", None)
    files = {name: pairs / f"images/{name}/a.png" for name in ("rgb", "gray")}

    def digest(shift: float) -> str:
        matrix = [[0.5, 0.0, shift], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
        stated = {"alignment": {"gray": {"reference": "rgb", "matrix": matrix}}}
        adapter = with_data_card(sensor, stated)
        return Planes(adapter, files, ImageCache(), tmp_path).digest

    assert digest(1.0) == digest(1.0) != digest(2.0)

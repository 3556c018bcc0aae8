"""The table of measured objects: the numbers of `simmat measure`, also after an edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from annotate_server import Client, served, square
from click.testing import CliRunner
from PIL import Image
from simmat_plugin_measure import measuring
from simmat_plugin_measure.command import command


def simmat_measure(image: Path, mask: Path, out: Path) -> bytes:
    """Return the table that `simmat measure` writes of a gray image."""
    words = [str(image), "--mask", str(mask), "--modality", "gray", "--out", str(out)]
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out.read_bytes()


def rows_of(client: Client, key: str, *ids: int) -> dict[int, dict[str, Any]]:
    """Return id -> column -> number of some objects in the only channel."""
    answer = client.done(f"/api/images/{key}/measure", {"channel": 0, "ids": ids})
    columns = answer["columns"]
    return {
        number: dict(zip(columns, values, strict=True))
        for number, *values in answer["rows"]
    }


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """The boxes of the objects of each measuring."""
    calls = []
    measure = measuring.measure

    def spy(image: Any, objects: Any, areas: Any, *, only: Sequence[int]) -> Any:
        calls.append([tuple(objects[at].window) for at in only])
        return measure(image, objects, areas, only=only)

    monkeypatch.setattr(measuring, "measure", spy)
    return calls


def add(*box: int) -> dict[str, Any]:
    return {"op": "add", "mask": square(*box)}


def test_the_table_is_that_of_simmat_measure(
    client: Client, root: Path, tmp_path: Path
) -> None:
    """Whoever saves it from the page and whoever measures the mask later must have the same numbers."""
    key = client.keys()["s1"]
    *_, empty = client.raw("GET", f"/api/images/{key}/objects.csv")
    assert empty.startswith(b"image,label,class,class_name,score,area")
    assert empty.count(b"\n") == 1
    client.edit(key, 0, add(30, 5, 40, 15), add(11, 8, 23, 20), add(1, 30, 9, 39))
    client.edit(key, 1, {"op": "remove", "id": 1})
    status, headers, table = client.raw("GET", f"/api/images/{key}/objects.csv")
    assert status == 200
    assert headers["content-type"].startswith("text/csv")
    measured_later = simmat_measure(
        root / "images/s1.png", root / "masks/s1.png", tmp_path / "table.csv"
    )
    assert table == measured_later
    assert table.count(b"\n") == 3


def test_labels_and_classes_of_the_table_are_those_of_the_mask(
    client: Client, root: Path, tmp_path: Path
) -> None:
    """With classes a mask holds class * 1000 + number, and a row must be found by it."""
    key = client.keys()["s0"]
    classes = {"classes": [{"id": None, "name": "cell"}, {"id": None, "name": "hole"}]}
    client.done("/api/classes", classes)
    client.edit(
        key, 0, {**add(0, 0, 9, 9), "class": 2}, {**add(20, 0, 29, 9), "class": 1}
    )
    *_, table = client.raw("GET", f"/api/images/{key}/objects.csv")
    starts = [line.split(",area,")[0] for line in table.decode().splitlines()]
    assert [",".join(line.split(",")[:4]) for line in starts] == [
        "image,label,class,class_name",
        "s0,1001,1,cell",
        "s0,2001,2,hole",
    ]
    later = simmat_measure(
        root / "images/s0.png", root / "masks/s0.png", tmp_path / "table.csv"
    )

    def numbers(content: bytes) -> list[list[str]]:
        return [line.split(",")[4:] for line in content.decode().splitlines()]

    assert numbers(table) == numbers(later)


def test_a_corrected_object_and_its_neighbours_are_measured_again(
    client: Client, root: Path, spied: list[Any]
) -> None:
    """The neighbour's ring has lost pixels; the numbers of objects far away still hold."""
    key = client.keys()["s0"]
    client.edit(key, 0, add(2, 2, 8, 8), add(14, 2, 20, 8), add(40, 30, 48, 38))
    before = rows_of(client, key, 1, 2, 3)
    assert len(spied[0]) == 3
    change = {"op": "replace", "id": 1, "mask": square(2, 2, 11, 8)}
    client.edit(key, 1, change)
    after = rows_of(client, key, 1, 2, 3)
    assert sorted(spied[1]) == [(2, 2, 8, 11), (2, 14, 8, 20)]
    image = np.asarray(Image.open(root / "images/s0.png")).astype(np.float64)
    assert after[1]["intensity_mean"] == pytest.approx(image[2:8, 2:11].mean())
    assert after[2]["intensity_mean"] == before[2]["intensity_mean"]
    assert after[2]["intensity_contrast"] != before[2]["intensity_contrast"]
    assert after[3] == before[3]
    assert set(rows_of(client, key, 1, 7)) == {1}  # another tab has removed 7


def test_a_change_of_class_measures_nothing(client: Client, spied: list[Any]) -> None:
    """Its pixels are the same."""
    key = client.keys()["s0"]
    client.done("/api/classes", {"classes": [{"id": None, "name": "cell"}]})
    client.edit(key, 0, {**add(2, 2, 8, 8), "class": None})
    before = rows_of(client, key, 1)
    client.edit(key, 1, {"op": "class", "id": 1, "class": 1})
    assert rows_of(client, key, 1) == before
    assert len(spied) == 1


def test_numbers_after_many_edits_are_those_of_a_fresh_start(
    client: Client, root: Path
) -> None:
    """Nothing that is kept may be of an earlier mask."""
    key = client.keys()["s2"]
    rng = np.random.default_rng(0)
    for version in range(12):
        x, y = (int(value) for value in rng.integers(0, (44, 28)))
        width, height = (int(value) for value in rng.integers(3, 12, 2))
        mask = square(x, y, x + width, y + height)
        client.edit(key, version, {"op": "add", "mask": mask, "overlap": "take"})
        *_, kept = client.raw("GET", f"/api/images/{key}/objects.csv")
        fresh = simmat_measure(
            root / "images/s2.png", root / "masks/s2.png", root.parent / "fresh.csv"
        )
        assert kept == fresh


def test_pixels_without_a_measurement_do_not_count(root: Path, bundle: Path) -> None:
    """A hole in the data is no dark part of an object."""
    image = np.asarray(Image.open(root / "images/s0.png")).copy()
    image[2:5, 2:5] = 0
    image[30:36, 30:36] = 0
    Image.fromarray(image).save(root / "images/s0.png")
    with served(root, bundle, {"nodata": 0}) as client:
        key = client.keys()["s0"]
        client.edit(key, 0, add(0, 0, 8, 8), add(31, 31, 35, 35))
        rows = rows_of(client, key, 1, 2)
    inside = image[:8, :8][image[:8, :8] != 0].astype(np.float64)
    assert rows[1]["intensity_min"] == inside.min() > 0
    assert rows[1]["intensity_mean"] == pytest.approx(inside.mean())
    assert set(rows[2].values()) == {None}


def test_areas_are_in_square_micrometres_where_the_file_states_them(
    root: Path, bundle: Path
) -> None:
    """The page has a column for them; a microscope writes the size of its pixels."""
    (root / "images/s0.png").unlink()
    tifffile.imwrite(
        root / "images/s0.tif",
        np.full((40, 56), 90, np.uint8),
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"unit": "um"},
    )
    with served(root, bundle) as client:
        key = client.keys()["s0"]
        client.edit(key, 0, add(0, 0, 10, 10))
        row = rows_of(client, key, 1)[1]
    assert "area_um2" in row
    assert row["area_um2"] == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"channel": 5, "ids": [1]}, 404),
        ({"channel": -1, "ids": [1]}, 422),
        ({"channel": 0, "ids": list(range(1, 600))}, 422),
        ({"channel": 0}, 422),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    client: Client, body: dict[str, Any], status: int
) -> None:
    """A script is told what is wrong."""
    key = client.keys()["s0"]
    client.edit(key, 0, add(0, 0, 9, 9))
    found, answer = client.post(f"/api/images/{key}/measure", body)
    assert found == status
    assert answer["error"]["message"]

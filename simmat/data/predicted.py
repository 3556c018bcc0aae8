"""The labels of a data set that a model made: where they are listed, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path

from simmat.data.samples import Sample, id_as_written
from simmat.errors import DataError, SimMATError, shortened
from simmat.io.files import output_errors, write_rows
from simmat.io.reading import read_csv_rows, read_json

PREDICTED_FILE = "predicted.csv"
"""Ids of images with objects that a model found, and that nobody has drawn, clicked or confirmed since."""

FOUND_BY_PREDICT = "Objects found by simmat predict"
"""What the COCO json of `simmat predict` says of itself."""

FOUND_IN_PAGE = (
    "Objects found by a model or drawn by hand in a page of simmat export --html"
)
"""What the COCO json of a page says of itself."""


def mark_predicted(
    root: Path, samples: Sequence[Sample], found: Set[str] = frozenset()
) -> list[Sample]:
    """Return the samples, those marked whose labels a model made.

    Their ids are in `root/predicted.csv` or `found`, or their masks are files that `simmat predict` wrote.
    """
    listed = read_predicted(root)
    marked = []
    for sample in samples:
        is_predicted = (
            id_as_written(sample.id) in listed
            or sample.id in found
            or _is_result(sample)
        )
        if is_predicted:
            sample = sample._replace(predicted=True)
        marked.append(sample)
    return marked


def _is_result(sample: Sample) -> bool:
    """Return whether `simmat predict` wrote the mask: the json of the image beside it then names it."""
    if not sample.has_mask:
        return False
    start, _, kind = sample.paths[-1].rpartition("_")
    if kind.partition(".")[0] not in ("objects", "classes"):
        return False
    mask = Path(sample.paths[-1])
    record = Path(f"{start}.json")
    if not record.is_file():
        return False
    try:
        values = read_json(record, "json of `simmat predict`")
    except SimMATError:
        return False
    if not isinstance(values, dict) or not isinstance(values.get("written"), list):
        return False
    return mask.name in values["written"]


def read_predicted(root: Path) -> frozenset[str]:
    """Return the ids in `root/predicted.csv`; none without the file. DataError if it cannot be used."""
    path = root / PREDICTED_FILE
    if not os.path.lexists(path):
        return frozenset()
    header, rows = read_csv_rows(path, "table of predicted labels", "id")
    if "id" not in header:
        raise DataError(
            f"{path}: its columns are {shortened(', '.join(map(repr, header)))}, expected id; write the ids of images "
            "whose labels a model made into a column id, or remove the file"
        )
    return frozenset(row[header.index("id")] for _, row in rows)


def write_predicted(root: Path, ids: Set[str]) -> None:
    """Replace the ids in `root/predicted.csv`; remove the file if there are none."""
    path = root / PREDICTED_FILE
    if ids:
        write_rows(path, [("id",), *((id,) for id in sorted(map(id_as_written, ids)))])
    else:
        with output_errors(path):
            path.unlink(missing_ok=True)


def predicted_note(
    root: Path, samples: Sequence[Sample], others: Sequence[Sample]
) -> str:
    """Say of how many images a model made the labels, and what follows; "" if of none.

    Args:
        others: images that are not used.
    """
    note = ""
    marked = [sample for sample in samples if sample.predicted]
    if marked:
        left_out = sum(sample.left_out for sample in marked)
        note = (
            f"The labels of {len(marked)} of {len(samples)} samples were made by a model ({PREDICTED_FILE}, a score in "
            f"COCO json, or a file of simmat predict). Used for training: {len(marked) - left_out}. Left out of val "
            f"and test until a person draws or confirms them: {left_out}."
        )
    listed = read_predicted(root)
    if listed:
        listed -= {id_as_written(sample.image_id) for sample in (*samples, *others)}
    strangers = sorted(listed)
    if strangers:
        note += f" {len(strangers)} ids of {PREDICTED_FILE} have no image, such as {strangers[0]!r}."
    return note.strip()

"""Write a data set folder for a published data set: a manifest, a card, and a link to the original folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simmat.data.card import make_card, merge, write_card
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.data.samples import SPLITS, Sample, decide_splits
from simmat.errors import DataError, OutputError, all_problems
from simmat.io.files import atomic_folder, atomic_write_text
from simmat_plugin_aims.layouts import LayoutSamples, find_layout

LINK = "original"
"""Name of the link. The manifest's paths start with it, as they must be inside the data set's folder."""


def index_layout(
    layout: str,
    root: Path,
    out: Path | None = None,
    *,
    card: Mapping[str, object] | None = None,
    skip_missing: bool = False,
) -> tuple[Path, LayoutSamples]:
    """Write a data set folder that links to a published data set, which is not changed.

    Args:
        layout: name of the layout of the data set.
        root: the unpacked folder of the data set.
        out: the new folder; None is `ROOT-simmat` next to `root`.
        card: fields of the data card that replace the layout's; None is not set.
        skip_missing: leave out samples with missing files instead of raising an error.

    Returns:
        The new folder, and what is in it.

    Raises:
        UnknownNameError: there is no such layout.
        DataError: the folder is not of this layout, or files are missing.
        ConfigError: a field of the card is invalid.
        OutputError: `out` is not empty, is inside `root`, or cannot be written.
    """
    name, known = find_layout(layout)
    target = _target(root, out)
    found = known.find(root)
    if found.missing and not (skip_missing and found.samples):
        raise DataError(
            all_problems(
                f"{root}: {len(found.missing)} samples of layout {name!r} lack files ({len(found.samples)} are "
                "complete); "
                "restore the files, or use --skip-missing:",
                found.missing,
            )
        )
    samples, split_note, _ = decide_splits(root, found.samples, f"layout {name!r}")
    found.samples = list(samples)
    found.notes += [
        note for note in (split_note, _split_warning(found.samples)) if note
    ]
    facts = {
        **known.card,
        "source": known.title,
        "notes": f"Written by simmat data index {name}.",
    }
    whole = make_card(merge(facts, card or {}), where=str(target))
    with atomic_folder(target) as folder:
        atomic_write_text(folder / MANIFEST_FILE, _manifest(root, found.samples))
        write_card(folder, whole)
        (folder / LINK).symlink_to(_link_target(root, target), target_is_directory=True)
    return target, found


def _split_warning(samples: Sequence[Sample]) -> str:
    """Warn about a data set without a training or a test split."""
    lacking = " and ".join(
        sorted({"train", "test"} - {sample.split for sample in samples})
    )
    return (
        f"Warning: no {lacking} sample is left; restore the files of that split"
        if lacking
        else ""
    )


def _target(root: Path, out: Path | None) -> Path:
    """Return the folder to write, after checking that it is free and not inside the data."""
    plain, origin = Path(os.path.abspath(root)), root.resolve()
    target = out if out is not None else plain.with_name(f"{plain.name}-simmat")
    if origin in (target.resolve(), *target.resolve().parents):
        raise OutputError(
            f"{target} is inside {root}, which must not change; choose a folder outside it with --out"
        )
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(
            f"{target} exists; choose another folder with --out, or remove it first"
        )
    return target


def _link_target(root: Path, target: Path) -> str:
    """Return the link's target: relative if both folders have the same parent, so that they can be moved together."""
    plain = Path(os.path.abspath(root))
    siblings = target.parent.resolve() == plain.parent.resolve()
    return os.path.join(os.pardir, plain.name) if siblings else str(plain)


def _manifest(root: Path, samples: Sequence[Sample]) -> str:
    text = io.StringIO()
    columns = list(samples[0].files)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "split", *columns, "mask"])
    for sample in sorted(
        samples, key=lambda sample: (SPLITS.index(sample.split), sample.id)
    ):
        paths = [*(sample.files[column] for column in columns), sample.mask or root]
        writer.writerow(
            [
                sample.id,
                sample.split,
                *(f"{LINK}/{path.relative_to(root).as_posix()}" for path in paths),
            ]
        )
    return text.getvalue()

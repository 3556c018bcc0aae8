"""`simmat predict`: from clicks and boxes on sensor files to masks."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from simmat.cli.common import PATH, load_registry, progress_bar
from simmat.cli.options import config_options, device_option, foundation_options
from simmat.cli.prompts import make_prompt, read_prompts
from simmat.config import parse_channels
from simmat.errors import ConfigError, DataError, SimMATError, all_problems
from simmat.io.files import check_writable, read_json, staged_files
from simmat.terminal import say
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.predictor import Choice, Prediction, Predictor


FORMAT = 1
"""Of the json beside a mask; raised with every change that an older reader would misread."""

_ENDINGS = (".json", "_mask.png", "_mask.tif", "_overlay.png")
"""Of the files that are written for each object."""


@dataclass(frozen=True)
class Sample:
    """An image and what is asked about it.

    Attributes:
        files: source name -> file.
        prompts: name of the output, without ending -> prompt.
    """

    files: Mapping[str, Path]
    prompts: Mapping[str, Prompt]


@click.command()
@click.argument("paths", nargs=-1, type=PATH, metavar="[BUNDLE] [FILE|DIR]...")
@config_options("modality", "modality_options", "channels")
@foundation_options
@click.option("--source", multiple=True, metavar="NAME=FILE", help="File of a source, where a sample has several.")
@click.option(
    "--missing",
    metavar="LIST",
    help="Channels this image lacks, by name, index or wavelength; for bundles of --mat channel-attention.",
)
@click.option("--point", multiple=True, metavar="X,Y", help="Pixel on the object; repeatable.")
@click.option("--negative", multiple=True, metavar="X,Y", help="Pixel not on the object; repeatable.")
@click.option("--box", metavar="X0,Y0,X1,Y1", help="Box around the object, in pixels.")
@click.option(
    "--prompts",
    type=PATH,
    metavar="FILE",
    help="Prompts for many objects in many images: CSV (file,object,point,negative,box) or COCO json (its boxes).",
)
@click.option(
    "--mask",
    "choice",
    type=click.Choice(["single", "best"]),
    default="single",
    show_default=True,
    help="The single answer, or the alternative with the best predicted score.",
)
@click.option("--out", required=True, type=PATH, help="Folder for masks and pictures.")
@device_option
def command(
    paths: tuple[Path, ...],
    modality: str | None,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    foundation: str | None,
    checkpoint: Path | None,
    source: tuple[str, ...],
    missing: str | None,
    point: tuple[str, ...],
    negative: tuple[str, ...],
    box: str | None,
    prompts: Path | None,
    choice: Choice,
    out: Path,
    device: str | None,
) -> None:
    """Segment what prompts mean in each FILE, and in the files of each DIR, with BUNDLE.

    BUNDLE is the folder of a bundle or of a run, or a zip. Without one, --foundation NAME --modality NAME answers with
    the untuned foundation model, which normalises each image by itself.

    For every file, --out gets NAME_mask.png (0 and 255, at the original size), NAME_overlay.png and
    NAME.json (score, prompt, size); where the file says its place on the earth and the sensor's plugin can write it,
    NAME_mask.tif keeps it. With --prompts, whose files are looked for in DIR or beside it, NAME is that of the file
    and of the object, NAME_OBJECT. Those of an earlier call are replaced, other files never. Pixels count from the
    top-left corner of the image as it is stored: X is the column, Y the row.

    A camera without one of its bands: --missing BAND, whether the file has that plane or not. A sensor all of whose
    channels are missing needs no file.
    """
    if prompts is not None and (point or negative or box is not None):
        raise ConfigError("--prompts says what is asked of each image; leave --point, --negative and --box out")
    asked = read_prompts(prompts) if prompts is not None else None
    everywhere = make_prompt(point, negative, box) if prompts is None else None
    lacking = _channels(missing)
    check_writable(out)

    predictor, files = _predictor(paths, modality, modality_options, channels, foundation, checkpoint, device)
    names = predictor.missing_channels(lacking)
    if asked is not None and prompts is not None:
        samples = list(_samples_of(asked, prompts, files, predictor, source))
    else:
        assert everywhere is not None  # one of both is there
        samples = _samples(predictor, files, source, names, everywhere)
    outputs = [name for sample in samples for name in sample.prompts]
    if twice := sorted({name for name in outputs if outputs.count(name) > 1}):
        raise ConfigError(f"several masks would be written as {twice[:5]}; rename the files, or use separate calls")
    before, lines = _own_files(out, outputs), []
    with (
        staged_files(out, replaced=before) as staging,  # a bad file must leave no half of the work, nor all in memory
        progress_bar("predict", "image", total=len(samples), shown=len(samples) > 1) as bar,
    ):
        for sample in samples:
            predictor.set_image(sample.files, missing=lacking)
            found = predictor.predict_prompts(tuple(sample.prompts.values()), choice=choice)
            for (name, prompt), prediction in zip(sample.prompts.items(), found, strict=True):
                _write(staging, name, prediction, prompt, sample.files, predictor, names)
                lines.append(f"{out / name}_mask.png  score {prediction.score:.3f}  {int(prediction.mask.sum())} px")
            if doubt := found[0].doubt:
                where = next(iter(sample.files.values()), Path(next(iter(sample.prompts)))).name
                say(f"Warning: {where}: {doubt}; are unit, bit depth and exposure the same?", err=True)
            bar.update(1)
    for line in lines:
        say(line)


def _predictor(
    paths: Sequence[Path],
    modality: str | None,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    foundation: str | None,
    checkpoint: Path | None,
    device: str | None,
) -> tuple[Predictor, Sequence[Path]]:
    """Load the bundle that the first path names, or the untuned model; return it with the paths of images."""
    if modality is None and (not paths or channels is not None or modality_options is not None):
        raise ConfigError(
            f"--{'channels' if channels else 'modality-option'} is for an untuned model, a bundle has its own; leave "
            "it out"
            if paths
            else "name a BUNDLE, or --foundation and --modality for an untuned model"
        )
    if modality is not None and foundation is None:
        raise ConfigError("--modality is for an untuned model, which needs --foundation NAME; a bundle has its own")

    from simmat.api import load

    source = None if modality is not None else paths[0]
    predictor = load(
        source,
        foundation=foundation,
        modality=modality,
        modality_options=modality_options,
        channels=channels,
        checkpoint=checkpoint,
        device=device or "auto",
        registry=load_registry(),
    )
    return predictor, paths if source is None else paths[1:]


def _own_files(out: Path, outputs: Sequence[str]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote of these outputs.

    Raises:
        ConfigError: what would be replaced was made by another command or a person, such as the masks of a data set.
    """
    own: set[str] = set()
    for name in outputs:
        there = [f"{name}{ending}" for ending in _ENDINGS if (out / f"{name}{ending}").exists()]
        written = _written(out / f"{name}.json") if there else frozenset()
        if foreign := [file for file in there if file not in written]:
            raise ConfigError(
                f"{out / foreign[0]} is there already and was not written by simmat predict; choose another --out, or "
                "move it away"
            )
        own.update(there)
    return frozenset(own)


def _written(beside: Path) -> frozenset[str]:
    """Return which files the json of an earlier call says it wrote; none where it is no such json."""
    try:
        found = read_json(beside)
    except SimMATError:
        return frozenset()
    names = found.get("written") if isinstance(found, dict) else None
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()


def _channels(text: str | None) -> tuple[str | int, ...]:
    try:
        return parse_channels(text) if text is not None else ()
    except ValueError as error:
        raise ConfigError(f"--missing {text!r} {error}") from None


def _samples(
    predictor: Predictor, paths: Sequence[Path], source: Sequence[str], missing: frozenset[str], prompt: Prompt
) -> list[Sample]:
    """Name every image and say which files it is made of; of each the same is asked."""
    spare = predictor.optional_sources(missing)
    names = tuple(name for name in predictor.adapter.source_names() if name not in spare)
    if source:
        given = _by_source(source, names, spare, paths)
        return [Sample(given, {given[names[0]].stem: prompt})]
    if not paths:
        raise ConfigError("no file to segment; give one or more files or folders" + _how(names))
    if len(names) > 1:
        raise ConfigError(f"modality {predictor.adapter.name!r} needs {len(names)} files a sample" + _how(names))
    return [Sample({names[0]: file}, {name: prompt}) for name, file in _files_of(predictor, paths)]


def _files_of(predictor: Predictor, paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield name and file of each image; those of a folder's subfolders have the folders in their names."""
    from simmat.data.formats.folders import files_by_stem

    for path in paths:
        if not path.is_dir():
            yield path.stem, path
            continue
        found = files_by_stem(path, predictor.adapter.sources[0].extensions)
        if not found:
            raise DataError(f"{path}: holds no image ({', '.join(predictor.adapter.sources[0].extensions)})")
        for stem, files in sorted(found.items()):
            yield from ((stem.replace("/", "__"), file) for file in files)


def _samples_of(
    asked: Mapping[str, Mapping[str, Prompt]],
    prompts: Path,
    paths: Sequence[Path],
    predictor: Predictor,
    source: Sequence[str],
) -> Iterator[Sample]:
    """Yield the images that a prompts file names, looked for in the folder given, else beside it."""
    names = predictor.adapter.source_names()
    if source or len(names) > 1:
        raise ConfigError("--prompts names one file an image, so it is for sensors of one file")
    if len(paths) > 1 or any(not path.is_dir() for path in paths):
        raise ConfigError("--prompts names the files itself; give at most the folder where they lie")
    folder = paths[0] if paths else prompts.parent
    lacking = [f"{file}: not in {folder}" for file in asked if not (folder / file).is_file()]
    if lacking:
        raise DataError(all_problems(f"{prompts}: files that are not there:", lacking))
    for file, objects in asked.items():
        stem = posixpath.normpath(Path(file).with_suffix("").as_posix()).strip("/").replace("/", "__")
        yield Sample({names[0]: folder / file}, {f"{stem}_{name}": prompt for name, prompt in objects.items()})


def _by_source(
    source: Sequence[str], names: Sequence[str], spare: Sequence[str], files: Sequence[Path]
) -> dict[str, Path]:
    """Read NAME=FILE items; all of `names` must be there, `spare` ones may and are not read."""
    found: dict[str, Path] = {}
    for item in source:
        name, equals, file = item.partition("=")
        if not equals or name not in (*names, *spare) or name in found:
            raise ConfigError(f"--source takes NAME=FILE once for each of {', '.join(names)}, got {item!r}")
        found[name] = Path(file)
    lacking = [name for name in names if name not in found]
    if lacking or files:
        raise ConfigError(
            (f"--source is missing for {', '.join(lacking)}" if lacking else "give either FILES or --source, not both")
            + _how(names)
        )
    return {name: file for name, file in found.items() if name in names}


def _how(names: Sequence[str]) -> str:
    return ": " + " ".join(f"--source {name}=FILE" for name in names) if len(names) > 1 else ""


def _write(
    out: Path,
    name: str,
    prediction: Prediction,
    prompt: Prompt,
    files: Mapping[str, Path],
    predictor: Predictor,
    missing: frozenset[str],
) -> None:
    from PIL import Image

    from simmat.io.files import atomic_path, atomic_write_json
    from simmat.report.display import display_rgb
    from simmat.report.overlay import draw_overlay

    placed = None
    if (place := prediction.image.georeference) is not None:
        placed = predictor.adapter.save_mask(prediction.mask, place, out / f"{name}_mask")
    channels = prediction.image.channels
    seen = prediction.image.select([i for i, channel in enumerate(channels) if channel.name not in missing])
    with atomic_path(out / f"{name}_mask.png") as path:
        Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(path)
    with atomic_path(out / f"{name}_overlay.png") as path:
        draw_overlay(display_rgb(seen), prediction.mask, prompt).save(path)
    height, width = prediction.image.size_hw
    written = [f"{name}_mask.png", f"{name}_overlay.png", f"{name}.json", *([placed.name] if placed else [])]
    atomic_write_json(
        out / f"{name}.json",
        {
            "format": FORMAT,
            "files": {source: str(file) for source, file in files.items()},
            "missing": sorted(missing),
            "bundle": str(predictor.bundle.path) if predictor.bundle else None,
            "size_hw": [height, width],
            "score": prediction.score,
            "mask_pixels": int(prediction.mask.sum()),
            "point_coords_xy": prompt.point_coords.tolist(),
            "point_labels": prompt.point_labels.tolist(),
            "box_xyxy": prompt.box.tolist() if prompt.box is not None else None,
            "written": written,
        },
    )

"""`simmat predict`: segment sensor images by clicks and boxes."""

from __future__ import annotations

import posixpath
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from simmat.cli.common import PATH, Command, load_registry, progress_bar
from simmat.cli.options import config_options, foundation_options, parsed, source_option
from simmat.cli.prompts import make_prompt, read_prompts
from simmat.errors import ConfigError, DataError, SimMATError, all_problems
from simmat.io.files import atomic_path, atomic_write_json, check_writable, read_json, staged_files
from simmat.sensors.channel_selection import parse_channels
from simmat.terminal import say
from simmat.types import Prompt, short_names

if TYPE_CHECKING:
    from simmat.predictor import Choice, Prediction, Predictor

FORMAT = 1
"""Of the json beside a mask; raised with every change that an older reader would misread."""
_ENDINGS = (".json", "_mask.png", "_mask.tif", "_overlay.png")
"""Of the files that are written for each object."""


@dataclass(frozen=True)
class Sample:
    """An image and its prompts.

    Attributes:
        files: source name -> file.
        prompts: name of the output, without ending -> prompt.
    """

    files: Mapping[str, Path]
    prompts: Mapping[str, Prompt]


SEARCH = ("everything", "semantic", "formats", "classes", "min_score", "min_area", "tile", "overlap")
"""Parameters of `search_options`."""


def search_options(command: Command) -> Command:
    """Add the options that find objects and classes without prompts."""
    number = click.IntRange
    for option in (
        click.option("--overlap", type=number(0), metavar="INT", help="Overlap of windows in pixels."),
        click.option("--tile", type=number(1), metavar="INT", help="Cut images into windows of this side in pixels."),
        click.option("--min-area", type=number(1), metavar="INT", help="Smallest object in pixels."),
        click.option("--min-score", type=click.FloatRange(0, 1), metavar="NUMBER", help="Smallest score of an object."),
        click.option("--classes", metavar="LIST", help="Keep these classes only, by name or number."),
        click.option(
            "--format",
            "formats",
            metavar="LIST",
            help="Files to write: labels,coco,geojson,gpkg,geotiff,overlay.  [default: labels,coco,overlay]",
        ),
        click.option("--semantic", is_flag=True, help="Find the class of every pixel."),
        click.option("--everything", is_flag=True, help="Find every object, without prompts."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("paths", nargs=-1, type=PATH, metavar="[BUNDLE] [FILE|DIR]...")
@config_options("modality", "modality_options", "channels")
@foundation_options
@source_option("File of a source, for sensors with several.")
@click.option(
    "--missing",
    metavar="LIST",
    callback=parsed(parse_channels),
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
    help="The model's single mask, or the alternative with the highest predicted IoU.",
)
@search_options
@click.option("--out", required=True, type=PATH, help="Folder for the results.")
@config_options("device")
def command(
    paths: tuple[Path, ...],
    source: Mapping[str, Path],
    missing: tuple[str | int, ...] | None,
    point: tuple[str, ...],
    negative: tuple[str, ...],
    box: str | None,
    prompts: Path | None,
    choice: Choice,
    out: Path,
    **given: Any,
) -> None:
    """Segment the object that a prompt marks in each FILE, and in the files of each DIR, with BUNDLE.

    With --everything or --semantic no prompt is needed: all objects, or the class of every pixel. Large images are cut
    into windows. Images that are done are skipped, so a stopped call continues; one that cannot be read stops no other.

    BUNDLE is the folder of a bundle or of a run, or a zip. Without one, --foundation NAME --modality NAME uses the
    untuned foundation model, which normalizes each image by itself.

    For every file, --out gets NAME_mask.png (0 and 255, at the original size), NAME_overlay.png and NAME.json (score,
    prompt, size, channels); also NAME_mask.tif, if the file is georeferenced and the sensor's plugin can write it. With
    --prompts, whose images are in DIR or in its own folder, the names are NAME_OBJECT. Results of an earlier call are
    replaced, other files never; what is done stays if a later file is wrong. If DIR is a data set, its images/ is
    taken. Pixels count from the top-left corner of the stored image: X is the column, Y the row.

    If a camera lacks one of its channels, give --missing CHANNEL, whether the file has that plane or not. A sensor
    whose channels are all missing needs no file.
    """
    search = {name: given.pop(name) for name in SEARCH}
    model, prompt = given, None
    searched = search["everything"] or search["semantic"]
    if searched:
        if point or negative or box is not None or prompts is not None:
            raise ConfigError("--everything and --semantic need no prompt; leave --point, --box and --prompts out")
    elif extra := [name for name, value in search.items() if value]:
        flag = extra[0].replace("_", "-").replace("formats", "format")
        raise ConfigError(f"--{flag} is for --everything and --semantic; add one of them, or leave it out")
    elif prompts is None:
        prompt = make_prompt(point, negative, box)
    elif point or negative or box is not None:
        raise ConfigError("--prompts gives the prompts of each image; leave --point, --negative and --box out")
    else:
        prompts_by_file = read_prompts(prompts)
    check_writable(out)

    predictor, files = _load(paths, model)
    names = predictor.missing_channels(missing or ())
    if searched:
        from simmat.cli.segment import Segmenter, job_of, segment_all

        job = job_of(predictor, out=out, missing=missing or (), **search)
        images = _images(predictor, files, source, names)
        _refuse_twice([name for name, _ in images])
        with _ended_by_sigterm():
            segment_all(dict(images), Segmenter(predictor, job), job)
        return
    if prompt is not None:
        samples = [Sample(own, {name: prompt}) for name, own in _images(predictor, files, source, names)]
    else:
        samples = list(_samples_of(prompts_by_file, prompts or Path(), files, predictor, source))
    outputs = [name for sample in samples for name in sample.prompts]
    _refuse_twice(outputs)
    _own_files(out, outputs)  # refuses files of others before any work
    done = 0
    with _ended_by_sigterm(), progress_bar("predict", "image", total=len(samples), shown=len(samples) > 1) as bar:
        try:
            for sample in samples:
                lines = _segment(sample, predictor, out, missing=missing or (), choice=choice)
                done += 1
                with bar.external_write_mode():
                    for line in lines:
                        say(line)
                bar.update(1)
        except BaseException:
            if done:
                say(f"{done} of {len(samples)} images are done, and their masks are in {out}", err=True)
            raise


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that nothing half-written stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _segment(
    sample: Sample, predictor: Predictor, out: Path, *, missing: Sequence[str | int], choice: Choice
) -> list[str]:
    """Write the masks of one image, all or none, and return what to print of them."""
    image = predictor.set_image(sample.files, missing=missing)
    found = predictor.predict_prompts(tuple(sample.prompts.values()), choice=choice)
    lacking, lines = predictor.missing_channels(missing), []
    with staged_files(out, replaced=_own_files(out, sample.prompts)) as staging:
        for (name, prompt), prediction in zip(sample.prompts.items(), found, strict=True):
            _write(staging, name, prediction, prompt, sample.files, predictor, lacking)
            pixels = int(prediction.mask.sum())
            lines.append(
                f"{out / name}_mask.png  score {prediction.score:.3f}  {pixels} px  of {short_names(image.channels)}"
            )
    where = next(iter(sample.files.values()), Path(next(iter(sample.prompts)))).name
    if doubt := found[0].doubt:
        say(f"Warning: {where}: {doubt}; are unit, bit depth and exposure the same?", err=True)
    if image.size_note:
        say(f"Warning: {where}: {image.size_note}", err=True)
    return lines


def _load(paths: Sequence[Path], model: Mapping[str, Any]) -> tuple[Predictor, Sequence[Path]]:
    """Load the bundle of the first path, or the untuned model; return it with the paths of images.

    Args:
        paths: as given.
        model: arguments of `simmat.load`.
    """
    untuned = model["modality"] is not None
    if not untuned and model["foundation"] is not None and paths and not _may_be_bundle(paths[0]):
        raise ConfigError(
            f"--modality is missing: {paths[0]} is not a bundle, so {model['foundation']!r} is used untuned and needs "
            "--modality NAME, the sensor of the files"
        )
    extra = [name for name in ("channels", "modality_options") if model[name] is not None]
    if not untuned and not paths:
        raise ConfigError("name a BUNDLE, or --foundation and --modality for an untuned model")
    if not untuned and extra:
        option = extra[0].replace("_", "-").replace("options", "option")
        raise ConfigError(f"--{option} is for an untuned model, a bundle has its own; leave it out")
    if untuned and model["foundation"] is None:
        raise ConfigError("--modality is for an untuned model, which needs --foundation NAME; a bundle has its own")

    from simmat.api import load

    arguments = {**model, "device": model["device"] or "auto", "registry": load_registry()}
    return (load(**arguments), paths) if untuned else (load(paths[0], **arguments), paths[1:])


def _may_be_bundle(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).exists() for name in ("bundle.json", "bundle", "config.toml"))
    return not path.is_file() or path.suffix.lower() == ".zip" or path.name == "bundle.json"


def _own_files(out: Path, outputs: Iterable[str]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote for these outputs.

    Raises:
        ConfigError: a file to replace was made by another command or a person, such as the masks of a data set.
    """
    own: set[str] = set()
    for name in outputs:
        existing = [f"{name}{ending}" for ending in _ENDINGS if (out / f"{name}{ending}").exists()]
        written = _written(out / f"{name}.json") if existing else []
        if foreign := [file for file in existing if file not in written]:
            raise ConfigError(
                f"{out / foreign[0]} exists already and was not written by simmat predict; choose another --out, or "
                "move it away"
            )
        own.update(existing)
    return frozenset(own)


def _written(file: Path) -> list[Any]:
    """Return the names of the files that an earlier call wrote, from its json."""
    try:
        found = read_json(file)
    except SimMATError:
        return []
    names = found.get("written") if isinstance(found, dict) else None
    return names if isinstance(names, list) else []


def _images(
    predictor: Predictor, paths: Sequence[Path], source: Mapping[str, Path], missing: frozenset[str]
) -> list[tuple[str, Mapping[str, Path]]]:
    """Return (output name, files) of each image of the command line."""
    optional = predictor.optional_sources(missing)
    names = tuple(name for name in predictor.adapter.source_names() if name not in optional)
    example = ": " + " ".join(f"--source {name}=FILE" for name in names) if len(names) > 1 else ""
    if source:
        if unknown := [name for name in source if name not in (*names, *optional)]:
            raise ConfigError(f"--source {unknown[0]}: the sources are {', '.join((*names, *optional))}")
        if absent := [name for name in names if name not in source]:
            raise ConfigError(f"--source is missing for {', '.join(absent)}{example}")
        if paths:
            raise ConfigError(f"give either FILES or --source, not both{example}")
        return [(source[names[0]].stem, {name: source[name] for name in names})]
    if not paths:
        raise ConfigError(f"no file to segment; give one or more files or folders{example}")
    if len(names) > 1:
        raise ConfigError(f"modality {predictor.adapter.name!r} needs {len(names)} files a sample{example}")
    return [(name, {names[0]: file}) for name, file in _named_files(predictor, paths)]


def _refuse_twice(names: Sequence[str]) -> None:
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ConfigError(f"several masks would be written as {twice[:5]}; rename the files, or use separate calls")


def _named_files(predictor: Predictor, paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield (output name, file) of each image; the names of subfolders are part of the output name."""
    from simmat.data.formats.folders import IMAGES, files_by_stem

    extensions = predictor.adapter.sources[0].extensions
    for path in paths:
        if not path.is_dir():
            yield path.stem, path
            continue
        if (path / IMAGES).is_dir():
            path = path / IMAGES
            say(f"note: {path.parent} is a data set; the files of {path} are segmented", err=True)
        found = files_by_stem(path, extensions)
        if not found:
            raise DataError(f"{path}: holds no image ({', '.join(extensions)})")
        for stem, files in sorted(found.items()):
            yield from ((stem.replace("/", "__"), file) for file in files)


def _samples_of(
    prompts_by_file: Mapping[str, Mapping[str, Prompt]],
    prompts: Path,
    paths: Sequence[Path],
    predictor: Predictor,
    source: Mapping[str, Path],
) -> Iterator[Sample]:
    """Yield the images of a prompts file, from the folder that is given or else the one it is in."""
    names = predictor.adapter.source_names()
    if source or len(names) > 1:
        raise ConfigError("--prompts names one file per image, so it is for sensors with one source")
    if len(paths) > 1 or any(not path.is_dir() for path in paths):
        raise ConfigError("--prompts names the files itself; give at most the folder that holds them")
    folder = paths[0] if paths else prompts.parent
    if absent := [f"{file}: not in {folder}" for file in prompts_by_file if not (folder / file).is_file()]:
        raise DataError(all_problems(f"{prompts}: missing files:", absent))
    for file, objects in prompts_by_file.items():
        stem = posixpath.normpath(Path(file).with_suffix("").as_posix()).strip("/").replace("/", "__")
        yield Sample({names[0]: folder / file}, {f"{stem}_{name}": prompt for name, prompt in objects.items()})


def _write(
    out: Path,
    name: str,
    prediction: Prediction,
    prompt: Prompt,
    files: Mapping[str, Path],
    predictor: Predictor,
    missing: frozenset[str],
) -> None:
    """Write mask, overlay and json of one object into the staging folder `out`."""
    from PIL import Image

    from simmat.report.display import display_rgb
    from simmat.report.overlay import draw_overlay

    image = prediction.image
    written = [f"{name}_mask.png", f"{name}_overlay.png", f"{name}.json"]
    if image.georeference is not None:
        placed = predictor.adapter.save_mask(prediction.mask, image.georeference, out / f"{name}_mask")
        written += [placed.name] if placed else []
    shown = image.select([i for i, channel in enumerate(image.channels) if channel.name not in missing])
    with atomic_path(out / written[0]) as path:
        Image.fromarray(prediction.mask.astype(np.uint8) * 255).save(path)
    with atomic_path(out / written[1]) as path:
        draw_overlay(display_rgb(shown), prediction.mask, prompt).save(path)
    atomic_write_json(
        out / written[2],
        {
            "format": FORMAT,
            "files": {source: str(file) for source, file in files.items()},
            "missing": sorted(missing),
            "bundle": str(predictor.bundle.path) if predictor.bundle else None,
            "size_hw": list(image.size_hw),
            "picture_hw": image.picture_hw,
            "channels": [{"name": c.name, "quantity": c.quantity, "unit": c.unit} for c in image.channels],
            "score": prediction.score,
            "mask_pixels": int(prediction.mask.sum()),
            "point_coords_xy": prompt.point_coords.tolist(),
            "point_labels": prompt.point_labels.tolist(),
            "box_xyxy": prompt.box.tolist() if prompt.box is not None else None,
            "written": written,
        },
    )

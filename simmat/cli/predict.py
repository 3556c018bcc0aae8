"""`simmat predict`: segment sensor images by clicks and boxes."""

from __future__ import annotations

import os
import posixpath
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.common import PATH, Command, load_registry
from simmat.cli.options import config_options, foundation_options, parsed, source_option
from simmat.cli.prompts import PromptOptions, Prompts, pixel_prompts, read_prompts
from simmat.errors import ConfigError, DataError, all_problems
from simmat.io.files import check_writable, stem_of
from simmat.sensors.channel_selection import parse_channels
from simmat.terminal import say
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.evaluation import Processes
    from simmat.plugins.registry import Registry
    from simmat.predictor import Choice, Predictor

SEARCH = ("everything", "semantic", "formats", "classes", "min_score", "min_area", "tile", "overlap", "mosaic")
"""Parameters of the options of `search_options`."""


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def search_options(command: Command) -> Command:
    """Add the options that find objects and classes without prompts."""
    number = click.IntRange
    for option in (
        click.option("--mosaic", is_flag=True, help="The files are tiles of one map: find objects over their borders."),
        click.option("--overlap", type=number(0), metavar="INT", help="Overlap of windows in pixels."),
        click.option("--tile", type=number(1), metavar="INT", help="Cut images into windows of this side in pixels."),
        click.option("--min-area", type=number(1), metavar="INT", help="Smallest object in pixels."),
        click.option("--min-score", type=click.FloatRange(0, 1), metavar="NUMBER", help="Smallest score of an object."),
        click.option("--classes", metavar="LIST", help="Keep these classes only, by name or number."),
        click.option(
            "--format",
            "formats",
            metavar="LIST",
            callback=parsed(_names),
            help="Files to write: labels,coco,geojson,gpkg,geotiff,overlay, or auto, the default of --everything and "
            "--semantic: labels,coco,overlay, and of images with a place on a map geotiff and gpkg instead of labels.",
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
    help="Prompts for many objects: CSV (file,object,point,negative,box), COCO json (its boxes), or points and "
    "polygons of a GeoJSON, GeoPackage or shapefile.",
)
@click.option(
    "--crs", metavar="CRS", help="--point, --box and the prompts file are in map coordinates, such as EPSG:4326."
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
@click.option(
    "--executor",
    default="local",
    metavar="local|tcp://HOST:PORT",
    show_default=True,
    help="Where --everything and --semantic run: here, or on the workers of a dask scheduler that see the same files.",
)
@click.option(
    "--cache",
    type=PATH,
    metavar="DIR",
    help="Keep embeddings in this folder, so that later prompts on the same image need no encoder.",
)
@click.option(
    "--compile",
    is_flag=True,
    help="Compile the network with torch.compile, for thousands of images or windows: minutes at the start; needs a "
    "compiler.",
)
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
    crs: str | None,
    choice: Choice,
    executor: str,
    cache: Path | None,
    out: Path,
    **given: Any,
) -> None:
    """Segment the object that a prompt marks in each FILE, and in the files of each DIR, with BUNDLE.

    --everything finds all objects and --semantic the class of every pixel, without a prompt. Large images are cut into
    windows. Finished images are skipped, so a stopped call can be repeated; a file that cannot be read does not stop
    the others.

    FILE may be the URL of a GeoTIFF (https://, s3://, gs://), of which only windows are fetched. With --mosaic the
    files are the tiles of one map, and the results are named "mosaic".

    BUNDLE is the folder of a bundle or of a run, or a zip. Without BUNDLE, --foundation NAME --modality NAME uses the
    untuned foundation model, with the statistics of each image for normalization.

    For every file, --out gets NAME_mask.png (0 and 255, at the original size), NAME_overlay.png and NAME.json (score,
    prompt, size, channels); also NAME_mask.tif if the file is georeferenced and the sensor's plugin can write it. With
    --prompts, the names are NAME_OBJECT, and the images are in DIR or in the folder of the prompts file. Only results
    of an earlier call are replaced. If DIR is a data set, its images/ folder is used. Pixels are counted from the
    top-left corner of the stored image: X is the column, Y the row.

    If a camera lacks a channel, give --missing CHANNEL, whether or not the file has a plane for it. A sensor whose
    channels are all missing needs no file.
    """
    search = {name: given.pop(name) for name in SEARCH}
    searched = search["everything"] or search["semantic"]
    prompt_options = PromptOptions(point, negative, box, prompts, crs)
    prompt_options.check(searched=searched, search=search)
    if searched and cache is not None:
        raise ConfigError(
            "--cache is for prompts; --everything and --semantic encode each window only once, and storing them all "
            "would fill the disk; leave it out"
        )
    for folder in filter(None, (out, cache)):
        check_writable(folder)

    processes = _processes(given["device"], executor)
    if processes is not None:
        own = processes.device
        given["device"] = str(own) if own.type == "cuda" else own.type  # accelerate names it cpu:0
    registry = load_registry()
    predictor, files = _load(paths, given, registry)
    names = predictor.inputs.missing_channels(missing or ())
    if searched:
        from simmat.cli.segment import job_of, segment_all

        images = _images(predictor, files, source, names, out)
        if search["mosaic"]:
            images = [("mosaic", _tiles(images))]
        job = job_of(predictor, registry, out=out, missing=missing or (), **search)
        with _ended_by_sigterm():
            segment_all(
                dict(images), predictor, job, model=_arguments(paths, given), executor=executor, processes=processes
            )
        return
    from simmat.cli.prompted import PromptJob, formats_of_prompts, segment_prompts

    if prompts is not None and not prompt_options.is_map_file:
        samples = list(_samples_of(read_prompts(prompts), prompts, files, predictor, source))
    else:
        samples = [
            (name, own, prompt_options.of_image(name)) for name, own in _images(predictor, files, source, names, out)
        ]
    with _ended_by_sigterm():
        formats = formats_of_prompts(search["formats"], registry)
        is_grouped = search["formats"] is not None
        prompt_job = PromptJob(out, formats, is_grouped, choice, missing or (), search["tile"], cache)
        segment_prompts(samples, predictor, prompt_job, processes)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that no partly written file is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _load(paths: Sequence[Path], model: Mapping[str, Any], registry: Registry) -> tuple[Predictor, Sequence[Path]]:
    """Load the bundle of the first path, or the untuned model; return it with the paths of images."""
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
        raise ConfigError(f"--{option} is for an untuned model; a bundle has its own; leave it out")
    if untuned and model["compile"]:
        raise ConfigError(
            "--compile is for a bundle; an untuned model is fitted to each image, and would compile anew; leave it out"
        )
    if untuned and model["foundation"] is None:
        raise ConfigError("--modality is for an untuned model, which needs --foundation NAME; a bundle has its own")

    from simmat.api import load

    predictor = load(**_arguments(paths, model), registry=registry)
    return predictor, paths if untuned else paths[1:]


def _arguments(paths: Sequence[Path], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `simmat.load`: the options, and the bundle unless the model is untuned."""
    source = {} if model["modality"] is not None else {"source": paths[0]}
    return {**source, **model, "device": model["device"] or "auto"}


def _processes(device: str | None, executor: str) -> Processes | None:
    """Join the processes of `accelerate launch`; None without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # without loading torch
        return None
    if executor != "local":
        raise ConfigError(f"--executor {executor} distributes the images itself; leave accelerate launch out")
    from simmat.evaluation import join_processes

    return join_processes(device)


def _may_be_bundle(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).exists() for name in ("bundle.json", "bundle", "config.toml"))
    return not path.is_file() or path.suffix.lower() == ".zip" or path.name == "bundle.json"


def _images(
    predictor: Predictor, paths: Sequence[Path], source: Mapping[str, Path], missing: frozenset[str], out: Path
) -> list[tuple[str, Mapping[str, Path]]]:
    """Return (output name, files) of each image of the command line."""
    optional = predictor.inputs.optional_sources(missing)
    names = tuple(name for name in predictor.adapter.source_names() if name not in optional)
    example = ": " + " ".join(f"--source {name}=FILE" for name in names) if len(names) > 1 else ""
    if source:
        if unknown := [name for name in source if name not in (*names, *optional)]:
            raise ConfigError(f"--source {unknown[0]}: the sources are {', '.join((*names, *optional))}")
        if absent := [name for name in names if name not in source]:
            raise ConfigError(f"--source is missing for {', '.join(absent)}{example}")
        if paths:
            raise ConfigError(f"give either FILES or --source, not both{example}")
        return [(stem_of(source[names[0]]), {name: source[name] for name in names})]
    if not paths:
        raise ConfigError(f"no file to segment; give one or more files or folders{example}")
    if len(names) > 1:
        raise ConfigError(f"modality {predictor.adapter.name!r} needs {len(names)} files a sample{example}")
    return [(name, {names[0]: file}) for name, file in _named_files(predictor, paths, out)]


def _tiles(images: Sequence[tuple[str, Mapping[str, Path]]]) -> dict[str, Path]:
    """Return the files of all images as the tiles of one."""
    if any(len(files) != 1 for _, files in images):
        raise ConfigError("--mosaic joins images of one file each; leave it out for a sensor with several files")
    return {f"tile {number}": file for number, (_, files) in enumerate(images, start=1) for file in files.values()}


def _named_files(predictor: Predictor, paths: Sequence[Path], out: Path) -> Iterator[tuple[str, Path]]:
    """Yield (output name, file) of each image; the names of subfolders are part of the output name.

    The files of `out` are results, not images.
    """
    from simmat.data.formats.folders import IMAGES, files_by_stem

    extensions = predictor.adapter.sources[0].extensions
    for path in paths:
        if not path.is_dir():
            yield stem_of(path), path
            continue
        if (path / IMAGES).is_dir():
            path = path / IMAGES
            say(f"note: {path.parent} is a data set; the files of {path} are segmented", err=True)
        found = files_by_stem(path, extensions)
        if out.resolve() == path.resolve():
            raise ConfigError(
                f"--out {out}: holds the images, so a second call would segment its results; choose another folder"
            )
        if out.resolve().is_relative_to(path.resolve()):
            results = f"{out.resolve().relative_to(path.resolve()).as_posix()}/"
            images = {stem: files for stem, files in found.items() if not stem.startswith(results)}
            if omitted := len(found) - len(images):
                say(f"note: {omitted} images in {out} are results, and are left out", err=True)
            found = images
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
) -> Iterator[tuple[str, Mapping[str, Path], Prompts]]:
    """Yield (output name, files, prompts) of each image of a prompts file, in the given folder or else its own."""
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
        named = {f"{stem}_{name}": prompt for name, prompt in objects.items()}
        yield stem, {names[0]: folder / file}, pixel_prompts(named)

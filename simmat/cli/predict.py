"""`simmat predict`: from clicks and boxes on sensor files to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from simmat.cli.common import PATH, load_registry
from simmat.cli.options import device_option, foundation_options
from simmat.config import parse_channels
from simmat.errors import ConfigError, SimMATError
from simmat.files import check_writable, read_json, staged_files
from simmat.missing import optional_sources
from simmat.terminal import say
from simmat.types import Prompt

if TYPE_CHECKING:
    from simmat.bundle import Bundle
    from simmat.prediction import Prediction


FORMAT = 1
"""Of the json beside a mask; raised with every change that an older reader would misread."""

_ENDINGS = (".json", "_mask.png", "_mask.tif", "_overlay.png")
"""Of the files that are written for each image."""


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("files", nargs=-1, type=PATH)
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
    "--mask",
    "choice",
    type=click.Choice(["single", "best"]),
    default="single",
    show_default=True,
    help="The single answer, or the alternative with the best predicted score.",
)
@click.option("--out", required=True, type=PATH, help="Folder for masks and pictures.")
@foundation_options
@device_option
def command(
    bundle: Path,
    files: tuple[Path, ...],
    source: tuple[str, ...],
    missing: str | None,
    point: tuple[str, ...],
    negative: tuple[str, ...],
    box: str | None,
    choice: str,
    out: Path,
    foundation: str | None,
    checkpoint: Path | None,
    device: str | None,
) -> None:
    """Segment what the prompt means in each of FILES with BUNDLE.

    For every file, --out gets NAME_mask.png (0 and 255, at the original size), NAME_overlay.png and
    NAME.json (score, prompt, size); where the file says its place on the earth and the sensor's plugin can write it,
    NAME_mask.tif keeps it. Those of an earlier call are replaced, other files never. Pixels count from the top-left
    corner of the image as it is stored: X is the column, Y the row.

    A camera without one of its bands: --missing BAND, whether the file has that plane or not. A sensor all of whose
    channels are missing needs no file.
    """
    prompt = _prompt(point, negative, box)
    lacking = _channels(missing)

    from simmat.bundle import load_bundle
    from simmat.nn.device import pick_device
    from simmat.prediction import missing_channels, predict

    check_writable(out)
    loaded = load_bundle(
        bundle, load_registry(), foundation=foundation, checkpoint=checkpoint, device=pick_device(device)
    )
    names = missing_channels(loaded, lacking)
    samples = _samples(loaded, files, source, names)
    before, lines = _own_files(out, samples), []
    with staged_files(
        out, replaced=before
    ) as staging:  # a bad file must leave no half of the work, nor all of it in memory
        for name, sources in samples.items():
            prediction = predict(loaded, sources, prompt, choice=choice, missing=lacking)  # type: ignore[arg-type]
            placed = None
            if prediction.georeference is not None:
                place = staging / f"{name}_mask"
                placed = loaded.adapter.save_mask(prediction.mask, prediction.georeference, place)
            _write(staging, name, prediction, prompt, sources, bundle, names, placed)
            if prediction.doubt:
                say(f"Warning: {name}: {prediction.doubt}; are unit, bit depth and exposure the same?", err=True)
            pixels = int(prediction.mask.sum())
            lines.append(f"{out / name}_mask.png  score {prediction.score:.3f}  {pixels} px")
    for line in lines:
        say(line)


def _own_files(out: Path, samples: Mapping[str, Mapping[str, Path]]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote of these samples.

    Raises:
        ConfigError: what would be replaced was made by another command or a person, such as the masks of a data set.
    """
    own: set[str] = set()
    for name in samples:
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


def _prompt(point: Sequence[str], negative: Sequence[str], box: str | None) -> Prompt:
    positive = [_numbers("--point", text, "X,Y") for text in point]
    others = [_numbers("--negative", text, "X,Y") for text in negative]
    if not positive and box is None:
        raise ConfigError("nothing says what to segment; give --point X,Y or --box X0,Y0,X1,Y1")
    corners = np.asarray(_numbers("--box", box, "X0,Y0,X1,Y1"), dtype=np.float32) if box is not None else None
    with np.errstate(over="ignore"):  # the bounds of the image refuse infinity
        coords = np.asarray([*positive, *others], dtype=np.float32).reshape(-1, 2)
    labels = np.asarray([1] * len(positive) + [0] * len(others), dtype=np.int64)
    return Prompt(coords, labels, corners)


def _numbers(option: str, text: str, form: str) -> list[float]:
    parts = text.replace(" ", "").split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != form.count(",") + 1 or not np.isfinite(values).all():
        raise ConfigError(f"{option} takes {form} in pixels, got {text!r}")
    return values


def _samples(
    bundle: Bundle, files: Sequence[Path], source: Sequence[str], missing: frozenset[str]
) -> dict[str, Mapping[str, Path]]:
    """Name every sample and say which files it is made of."""
    spare = optional_sources(bundle.adapter, bundle.spec.sensor_channels, missing)
    names = tuple(name for name in bundle.adapter.source_names() if name not in spare)
    if source:
        given = _by_source(source, names, spare, files)
        return {given[names[0]].stem: given}
    if not files:
        raise ConfigError("no file to segment; give one or more FILES" + _how(names))
    if len(names) > 1:
        raise ConfigError(f"modality {bundle.spec.modality!r} needs {len(names)} files a sample" + _how(names))
    stems = [file.stem for file in files]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ConfigError(f"several files would be written as {twice}; segment them in separate calls")
    return {file.stem: {names[0]: file} for file in files}


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
    bundle: Path,
    missing: frozenset[str],
    placed: Path | None,
) -> None:
    from PIL import Image

    from simmat.files import atomic_path, atomic_write_json
    from simmat.report.display import display_rgb
    from simmat.report.overlay import draw_overlay

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
            "bundle": str(bundle),
            "size_hw": [height, width],
            "score": prediction.score,
            "mask_pixels": int(prediction.mask.sum()),
            "point_coords_xy": prompt.point_coords.tolist(),
            "point_labels": prompt.point_labels.tolist(),
            "box_xyxy": prompt.box.tolist() if prompt.box is not None else None,
            "written": written,
        },
    )

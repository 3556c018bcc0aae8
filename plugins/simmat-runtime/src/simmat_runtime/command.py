"""`simmat-runtime`: run an exported model from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simmat_runtime.files import read_file
from simmat_runtime.manifest import Channel
from simmat_runtime.model import Model, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="simmat-runtime", description="Run a model that `simmat export` wrote."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser(
        "info", help="print inputs and outputs of the model as json"
    )
    predict = commands.add_parser("predict", help="segment one image")
    for command in (info, predict):
        command.add_argument("model", metavar="DIR", help="the exported model")
    predict.add_argument(
        "images",
        nargs="+",
        metavar="FILE",
        help=".npy of shape (C, H, W) in the sensor's units, NaN where missing; or PNG, JPEG, TIFF with [images]; or "
        "NAME=FILE for each sensor of a model that joins several",
    )
    predict.add_argument(
        "--matrix",
        action="append",
        default=[],
        type=_matrix,
        metavar="NAME=9 NUMBERS",
        help="place of the image of a further sensor on that of the first, row by row with commas; needed if each "
        "image has its own",
    )
    predict.add_argument(
        "--point",
        action="append",
        default=[],
        type=_numbers(2),
        metavar="X,Y",
        help="pixel on the object",
    )
    predict.add_argument(
        "--negative",
        action="append",
        default=[],
        type=_numbers(2),
        metavar="X,Y",
        help="pixel not on the object",
    )
    predict.add_argument(
        "--box",
        type=_numbers(4),
        metavar="X0,Y0,X1,Y1",
        help="outer edges of the object",
    )
    predict.add_argument(
        "--everything", action="store_true", help="find every object, without a prompt"
    )
    predict.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".npy: a mask, or the ids of objects",
    )
    given = parser.parse_args(arguments)
    try:
        if given.command == "info":
            print(json.dumps(load(given.model).manifest.document, indent=2))
        else:
            _predict(given, load(given.model))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _predict(given: argparse.Namespace, model: Model) -> None:
    out = Path(given.out)
    if out.suffix != ".npy":
        raise ValueError(f"--out must be a file that ends in .npy, got {given.out!r}")
    if not out.parent.is_dir():
        raise ValueError(
            f"--out {given.out!r} is in a folder that does not exist; make it: mkdir {out.parent}"
        )
    if given.everything == bool(given.point or given.negative or given.box):
        raise ValueError("give --point or --box, or --everything")
    images: Any
    if len(given.images) == 1:
        images = read_file(given.images[0], model.channels)
    else:
        images = _images(given.images, model)
    model.set_image(images, dict(given.matrix))
    result: np.ndarray[Any, Any]
    if given.everything:
        found = model.everything()
        result = np.zeros(model.size_hw, np.uint16)
        for number, one in reversed(list(enumerate(found, start=1))):
            result[one.mask] = number
        for number, one in enumerate(found, start=1):
            print(
                json.dumps(
                    {
                        "number": number,
                        "score": one.score,
                        "class": one.class_id,
                        "box_xyxy": one.box_xyxy,
                    }
                )
            )
    else:
        points = [*given.point, *given.negative]
        prediction = model.predict(
            points, [1] * len(given.point) + [0] * len(given.negative), given.box
        )
        result = prediction.mask
        print(
            json.dumps(
                {
                    "score": prediction.score,
                    "pixels": int(result.sum()),
                    "class": prediction.class_id,
                }
            )
        )
    temporary = out.with_name(f".{out.name}.part")
    try:
        # of a killed process, or a link that would be followed
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as stream:
            np.save(stream, result)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _images(items: Sequence[str], model: Model) -> dict[str, Any]:
    """Read the image of each sensor from "NAME=FILE"."""
    if not model.manifest.sensors:
        raise ValueError("the model takes one image of all its channels; give one FILE")
    channels: dict[str, Sequence[Channel]] = {}
    start = 0
    for sensor in model.manifest.sensors:
        end = start + len(sensor.averaged)
        channels[sensor.name] = model.channels[start:end]
        start = end
    images: dict[str, Any] = {}
    for item in items:
        name, _, file = item.partition("=")
        if name not in channels or name in images or not file:
            raise ValueError(
                f"give NAME=FILE once for each of the sensors {', '.join(channels)}; got {item!r}"
            )
        images[name] = read_file(file, channels[name])
    return images


def _numbers(count: int) -> Any:
    def numbers(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count:
            raise argparse.ArgumentTypeError(
                f"expected {count} numbers with commas, got {text!r}"
            )
        return values

    return numbers


def _matrix(text: str) -> tuple[str, list[list[float]]]:
    """Return the name of a sensor and its matrix from "NAME=a,b,c,d,e,f,g,h,i"."""
    name, _, numbers = text.partition("=")
    values = list(_numbers(9)(numbers))
    return name, [values[:3], values[3:6], values[6:]]


def run() -> None:
    """Run the command as a program."""
    sys.exit(main())

"""`simmat export`: a trained model as ONNX files, or as a web page."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import click

from simmat.cli.options import PATH, foundation_options, load_registry
from simmat.errors import ConfigError, OutputError
from simmat.io.files import check_writable
from simmat.plugin_specs import FunctionSpec
from simmat.terminal import echo

FORMAT = FunctionSpec(
    "onnx",
    "ONNX files, run by onnxruntime on the CPU",
    "simmat_plugin_export.network:load",
)


@click.command("export")
@click.argument("bundle", metavar="BUNDLE", type=PATH)
@click.option(
    "--format",
    "kind",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx"]),
    help="Format of the files.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="DIR",
    help="A new folder, or one of an earlier export.",
)
@click.option(
    "--html",
    type=PATH,
    metavar="FILE",
    help="A web page that holds the model and opens from a disk, without installation and network.",
)
@click.option(
    "--picture",
    type=PATH,
    metavar="FILE",
    help="PNG or JPEG that the web page shows: what the model finds, such as NAME_overlay.png of simmat predict.",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "fp16"]),
    help="Number format of the encoder.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8-dynamic", "int8-static"]),
    help="Store the encoder's matrices, or also its convolutions, as 8-bit integers, calibrated with --data.",
)
@click.option(
    "--data",
    type=PATH,
    metavar="DIR",
    help="Data set whose val split calibrates the encoder and measures the loss of accuracy.",
)
@foundation_options
def command(
    bundle: Path,
    kind: str,
    out: Path | None,
    html: Path | None,
    picture: Path | None,
    precision: Literal["fp32", "fp16"],
    quantize: Literal["int8-dynamic", "int8-static"] | None,
    data: Path | None,
    foundation: str | None,
    checkpoint: Path | None,
) -> None:
    """Write a trained model as ONNX files that run without torch.

    BUNDLE is a bundle, or the folder of a run. Give --out, --html, or both. The files take images in the sensor's
    units, NaN where nothing was measured, and give masks; `simmat_runtime` runs them with numpy and onnxruntime alone.
    The page of --html opens the sensor's files in a browser.
    """
    import simmat

    try:
        from simmat_plugin_export.export import export
        from simmat_plugin_export.html import check_page, read_picture, write_page
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("onnx", "onnxruntime"):
            raise
        raise ConfigError(
            f"simmat export needs {missing}, which is missing; pip install {missing}"
        ) from error
    _check_options(out, html, picture, precision, quantize)
    picture_url = ""
    if picture is not None:
        picture_url = read_picture(picture)
    predictor = simmat.load(
        bundle,
        foundation=foundation,
        checkpoint=checkpoint,
        device="cpu",
        registry=load_registry(),
    )
    assert predictor.bundle is not None  # what is loaded from a folder has one
    loaded = predictor.bundle
    if html is not None:
        check_page(loaded)
    with ExitStack() as stack:
        folder = out
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory())) / "exported"
        done = export(
            loaded,
            folder,
            precision=quantize or precision,
            data=data,
            progress=lambda step: echo(step, err=True),
        )
        if html is not None:
            size = write_page(loaded, folder, html, picture=picture_url)
    if out is not None:
        for name, count in done.files.items():
            echo(f"{out / name}: {count / 2**20:.1f} MiB")
    echo(f"largest difference to torch, of logits and scores: {done.difference:.1g}")
    if done.loss is not None:
        echo(
            f"mIoU of one click on {done.loss.objects} objects in {done.loss.images} images of val: "
            f"{done.loss.torch:.4f} in torch, {done.loss.exported:.4f} exported"
        )
    if out is not None:
        echo(f"run it with simmat_runtime.load({str(out)!r})")
    if html is not None:
        echo(f"{html}: {size / 2**20:.1f} MiB; open it in a browser")


def _check_options(
    out: Path | None,
    html: Path | None,
    picture: Path | None,
    precision: str,
    quantize: str | None,
) -> None:
    """Raise ConfigError for options that do not fit together, OutputError for a page that cannot be written."""
    if out is None and html is None:
        raise ConfigError(
            "give --out DIR for ONNX files, --html FILE for a web page, or both"
        )
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"--html must be a file that ends in .html, got {str(html)!r}"
        )
    if html is not None:
        if html.is_dir():
            raise OutputError(f"{html} is a folder; give the name of a file in it")
        check_writable(html.absolute().parent)
    if picture is not None and html is None:
        raise ConfigError(
            "--picture is for the web page; give --html FILE, or leave it out"
        )
    if quantize is not None and precision != "fp32":
        raise ConfigError(
            "--precision fp16 and --quantize exclude each other; leave one out"
        )

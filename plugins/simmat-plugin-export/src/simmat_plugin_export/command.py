"""`simmat export`: a trained model as ONNX files."""

from __future__ import annotations

from pathlib import Path

import click

from simmat.cli.common import PATH, load_registry
from simmat.cli.options import foundation_options
from simmat.terminal import say


@click.command("export")
@click.argument("bundle", metavar="BUNDLE", type=PATH)
@click.option("--format", "kind", default="onnx", show_default=True, type=click.Choice(["onnx"]), help="Of the files.")
@click.option("--out", required=True, type=PATH, metavar="DIR", help="A new folder, or one of an earlier export.")
@foundation_options
def command(bundle: Path, kind: str, out: Path, foundation: str | None, checkpoint: Path | None) -> None:
    """Write a trained model as ONNX files that run without torch.

    BUNDLE is a bundle, or the folder of a run. The files take images in the sensor's units, NaN where nothing was
    measured, and give masks; `simmat_runtime` runs them with numpy and onnxruntime alone.
    """
    import simmat
    from simmat_plugin_export.export import export

    predictor = simmat.load(
        bundle, foundation=foundation, checkpoint=checkpoint, device="cpu", registry=load_registry()
    )
    assert predictor.bundle is not None  # what is loaded from a folder has one
    done = export(predictor.bundle, out, progress=lambda step: say(step, err=True))
    for name, size in done.files.items():
        say(f"{out / name}: {size / 2**20:.1f} MiB")
    say(f"equal to torch within {done.difference:.1g}; run it with simmat_runtime.load({str(out)!r})")

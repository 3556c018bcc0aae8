"""`simmat eval`: score a bundle on a split, with the zero-shot figure of its foundation model beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.common import load_registry, print_json, print_table
from simmat.cli.options import checkpoint_option, data_options, device_option

if TYPE_CHECKING:
    from simmat.bundle import Bundle
    from simmat.evaluation import Scores


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--split", default="test", show_default=True, help="Split to score: train, val or test.")
@click.option("--zero-shot/--no-zero-shot", default=True, show_default=True, help="Score the untuned model too.")
@data_options
@checkpoint_option
@device_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the scores, object by object, to this json file.")
@click.option("--json", "as_json", is_flag=True, help="Print json.")
def command(
    bundle: Path,
    data: Path,
    split: str,
    zero_shot: bool,
    checkpoint: Path | None,
    device: str | None,
    out: Path | None,
    as_json: bool,
    **card: Any,
) -> None:
    """Score BUNDLE with one click an object, masks compared at the original size.

    The click is the maximum of the object's distance transform. What a region is stands in the data
    set's card.toml or on the command line; else it is what the bundle was trained with.
    """
    from tqdm import tqdm

    from simmat.bundle import load_bundle
    from simmat.evaluation import evaluate_bundle
    from simmat.nn.device import pick_device

    registry = load_registry()
    loaded = load_bundle(bundle, registry, checkpoint=checkpoint, device=pick_device(device))
    with tqdm(desc="scoring", unit="image", disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        tuned, untuned = evaluate_bundle(
            loaded, data, split, overrides=card, zero_shot=zero_shot, registry=registry, progress=advance
        )
    report = _report(loaded, data, split, tuned, untuned)
    if out is not None:
        from simmat.files import atomic_write_json

        objects = [asdict(score) for score in tuned.objects]
        atomic_write_json(out, {**report, "scores": objects, "without_region": list(tuned.without_region)})
    if as_json:
        print_json(report)
    else:
        _print(report, wanted=zero_shot)


def _report(bundle: Bundle, data: Path, split: str, tuned: Scores, untuned: Scores | None) -> dict[str, Any]:
    spec = bundle.spec
    return {
        "bundle": str(bundle.path),
        "data": str(data),
        "split": split,
        "modality": spec.modality,
        "foundation": spec.foundation,
        "mat": spec.mat,
        "tune": spec.tune,
        "image_size": spec.image_size,
        "tuned": tuned.summary(),
        "zero_shot": untuned.summary() if untuned is not None else None,
    }


def _print(report: dict[str, Any], *, wanted: bool) -> None:
    tuned, untuned = report["tuned"], report["zero_shot"]
    click.echo(
        f"{report['split']} split of {report['data']}: {tuned['objects']} objects in {tuned['images']} images, "
        "one click each"
    )
    rows = [
        ("mean over objects", "miou_object"),
        ("mean over images", "miou_image"),
        ("mean over classes", "miou_class"),
        ("best predicted of the alternatives", "miou_best_predicted"),
        ("best possible of the alternatives", "miou_oracle"),
    ]
    table = [(name, _figure(untuned and untuned[key]), _figure(tuned[key])) for name, key in rows]
    for name, value in tuned["iou_by_class"].items():
        table.append((f"class {name}", _figure(untuned and untuned["iou_by_class"].get(name)), _figure(value)))
    print_table(("MIOU", "ZERO-SHOT", "TUNED"), table)
    if wanted and untuned is None:
        click.echo(f"no zero-shot figure: the decoder of {report['foundation']!r} was never trained")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

"""`simmat bundle`: show, share and fetch bundles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import Group
from simmat.cli.options import PATH, json_option, load_registry
from simmat.cli.tables import (
    channel_cells,
    print_json,
    print_sensor_definitions,
    print_table,
    score_rows,
)
from simmat.plugin_specs import MetricSpec
from simmat.terminal import echo

if TYPE_CHECKING:
    from simmat.bundle import BundleSpec
    from simmat.calibration import Calibration
    from simmat_plugin_hub.gallery import GalleryEntry


command = Group("bundle", help="Show, share and fetch bundles.")


@command.command("show")
@click.argument("bundle", type=PATH)
@json_option
def show(bundle: Path, as_json: bool) -> None:
    """Show the sensor, network, data and scores of BUNDLE, or of each sensor that it holds."""
    from simmat.bundle import read_bundle_specs

    specs = read_bundle_specs(bundle)
    if as_json:
        dumped = {name: spec.model_dump(mode="json") for name, spec in specs.items()}
        is_single = len(dumped) == 1
        print_json(next(iter(dumped.values())) if is_single else dumped)
        return
    metrics = load_registry().all("metric")
    for number, (name, spec) in enumerate(specs.items()):
        if number:
            echo()
        title = bundle / name if len(specs) > 1 else bundle
        _show(str(title), spec, metrics)


def _show(title: str, spec: BundleSpec, metrics: Sequence[MetricSpec]) -> None:
    from simmat_plugin_hub.card import data_rows, network_rows

    print_table(("", title), network_rows(spec))
    echo()
    _show_channels(spec)
    if spec.sensor_definitions:
        echo()
        print_sensor_definitions(spec.sensor_definitions)
    echo()
    print_table(("DATA CARD", ""), data_rows(spec.card))
    if spec.calibration is not None and spec.calibration.curves:
        echo()
        _show_calibration(spec.calibration)
    scores = spec.metrics.get("val")
    if isinstance(scores, dict):
        echo()
        _show_scores(spec, scores, metrics)


def _show_channels(spec: BundleSpec) -> None:
    found = spec.statistics
    rows = []
    for channel, mean, std, pixels in zip(
        spec.channels, found.mean, found.std, found.pixels, strict=True
    ):
        measured = f"mean {mean:.5g}, std {std:.5g}, {pixels:,} valid pixels"
        rows.append(
            (
                *channel_cells(channel),
                f"{channel.mean:.5g}",
                f"{channel.std:.5g}",
                measured,
            )
        )
    head = (
        "CHANNEL",
        "QUANTITY",
        "UNIT",
        "WAVELENGTH",
        "VALID RANGE",
        "MEAN",
        "STD",
        "TRAINING SPLIT",
    )
    print_table(head, rows)


def _show_calibration(calibration: Calibration) -> None:
    from simmat.calibration import KINDS

    rows = []
    for kind, curve in calibration.curves.items():
        errors = [
            "-" if error is None else f"{error:.3f}"
            for error in (curve.ece, curve.ece_calibrated)
        ]
        rows.append((KINDS[kind], f"{curve.objects}", *errors))
    print_table(("CALIBRATED SCORE OF", "OBJECTS", "ECE BEFORE", "ECE AFTER"), rows)


def _show_scores(
    spec: BundleSpec, scores: Mapping[str, Any], metrics: Sequence[MetricSpec]
) -> None:
    rows = []
    for name in ("objects", "images"):
        if name in scores:
            rows.append((name, str(scores[name])))
    for name in ("step", "protocol"):
        if name in spec.metrics:
            rows.append((name, str(spec.metrics[name])))
    # before calibration
    own = {name: block for name, block in scores.items() if name != "confidence"}
    rows += score_rows(own, spec.card.class_names, metrics)
    print_table(("VALIDATION SPLIT", ""), rows)


@command.command("push")
@click.argument("bundle", type=PATH)
@click.argument("destination")
@click.option(
    "--licence",
    "--license",
    metavar="NAME",
    help="Licence of the bundle, as the hub names it: apache-2.0, cc-by-4.0, other.",
)
@click.option(
    "--private", is_flag=True, help="Make a new repository on the hub private."
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def push(
    bundle: Path, destination: str, licence: str | None, private: bool, force: bool
) -> None:
    """Check BUNDLE and copy it to DESTINATION: NAME.safetensors, a folder, or with a model card hf://ORG/NAME.

    If BUNDLE holds several sensors, BUNDLE/NAME copies one of them.
    """
    from simmat.bundle import read_bundle_specs
    from simmat_plugin_hub.sharing import push_bundle

    echo(
        push_bundle(
            bundle,
            destination,
            licence=licence,
            registry=load_registry(),
            force=force,
            private=private,
        )
    )
    if licence is None and not all(
        spec.licence for spec in read_bundle_specs(bundle).values()
    ):
        echo(
            "note: no licence is stated; give --licence NAME, so others know how they may use the bundle",
            err=True,
        )


@command.command("pull")
@click.argument("source")
@click.option(
    "--out",
    type=PATH,
    help="File NAME.safetensors, or a folder.  [default: the source's name, in the current folder]",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def pull(source: str, out: Path | None, force: bool) -> None:
    """Fetch a bundle into a file, and check it.

    SOURCE is a bundle, RUN/NAME, hf://ORG/NAME[@REVISION], or gallery:NAME, see `simmat bundle list`.
    """
    from simmat_plugin_hub.sharing import pull_bundle

    echo(pull_bundle(source, out, force=force))


@command.command("card")
@click.argument("bundle", type=PATH)
def card(bundle: Path) -> None:
    """Print the model card of BUNDLE, as `push` writes it to the hub."""
    from simmat.bundle import read_bundle_specs
    from simmat_plugin_hub.card import model_card

    echo(model_card(read_bundle_specs(bundle), registry=load_registry()))


@command.command("list")
@click.option(
    "--gallery",
    required=True,
    envvar="SIMMAT_GALLERY",
    show_envvar=True,
    metavar="URL|DIR",
    help="Address or folder of the gallery.",
)
@json_option
def list_gallery(gallery: str, as_json: bool) -> None:
    """List the bundles of a gallery. If SIMMAT_GALLERY is set, gallery:NAME can stand for any BUNDLE."""
    from simmat_plugin_hub.gallery import open_gallery

    opened = open_gallery(gallery)
    found = opened.bundles
    if opened.unreachable:
        echo(f"note: this is the last known list: {opened.unreachable}", err=True)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    rows = []
    for one in found:
        score = (
            f"{one.scores['miou_object']:.3f}" if "miou_object" in one.scores else "-"
        )
        size = f"{one.size / 1e6:.1f} MB"
        classes = ", ".join(one.classes.values()) or "none"
        data = f"{one.data or 'not stated'}; classes: {classes}"
        rows.append(
            (
                one.name,
                one.sensor,
                one.foundation,
                size,
                score,
                one.licence or "not stated",
                data,
            )
        )
    print_table(
        ("NAME", "SENSOR", "FOUNDATION", "SIZE", "VAL MIOU", "LICENCE", "DATA"), rows
    )


@command.command("index")
@click.argument("folder", type=PATH, metavar="DIR")
@click.option(
    "--html",
    is_flag=True,
    help="Also write index.html, which lists the bundles, and NAME.html, a page that runs one in a browser.",
)
def index(folder: Path, html: bool) -> None:
    """Make a gallery of DIR: write index.json, and NAME.md, the model card, of its bundles NAME.safetensors.

    NAME.jpg or NAME.png is the picture of a bundle.

    A web server that shows DIR, such as `python -m http.server`, serves the gallery.
    """
    from simmat_plugin_hub.pages import check_pages
    from simmat_plugin_hub.sharing import index_folder

    if html:
        check_pages(folder)
    entries = index_folder(folder).bundles
    names = ", ".join(one.name for one in entries)
    echo(f"wrote {folder / 'index.json'}: {names}")
    if html:
        _write_pages(folder, entries)


def _write_pages(folder: Path, entries: Sequence[GalleryEntry]) -> None:
    from simmat_plugin_hub.pages import make_pages, write_list

    refused = make_pages(
        folder,
        entries,
        load_registry(),
        progress=lambda step: echo(step, err=True),
    )
    for name, why in refused.items():
        echo(f"note: {name} is listed without a page to try it: {why}", err=True)
    tried = [one.name for one in entries if one.name not in refused]
    page = write_list(folder, entries, list(refused))
    echo(f"wrote {page}; to try in a browser: {', '.join(tried) or 'none'}")

"""The commands `simmat annotate` and `simmat serve`."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli import ended_by_sigterm
from simmat.cli.options import (
    PATH,
    Command,
    config_options,
    foundation_options,
    load_registry,
)
from simmat.errors import ConfigError
from simmat.terminal import echo

if TYPE_CHECKING:
    from simmat.sensors.adapter import ModalityAdapter
    from simmat_plugin_annotate.folder import LabelFolder
    from simmat_plugin_annotate.models import ServedModel

ANNOTATE_TOKEN, SERVE_TOKEN = "SIMMAT_ANNOTATE_TOKEN", "SIMMAT_SERVE_TOKEN"
"""Environment variables with the token, for scripts; the default is a random token at each start."""


def network_options(command: Command) -> Command:
    """Add --port, --host and --allow-host."""
    port = click.option(
        "--port",
        type=click.IntRange(1, 65535),
        metavar="INT",
        help="Port.  [default: 8765, or any free one]",
    )
    host = click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Address to listen on.",
    )
    allowed = click.option(
        "--allow-host",
        multiple=True,
        metavar="NAME",
        help="Name or address by which clients reach the server, with :PORT if the port differs.  [repeatable]",
    )
    return port(host(allowed(command)))


@click.command("annotate", short_help="Label images in the browser.")
@click.argument("folder", type=PATH, metavar="DIR")
@config_options("modality", "modality_options", "channels")
@click.option(
    "--bundle", type=PATH, metavar="RUN", help="Run or bundle of a tuned model."
)
@click.option(
    "--predictions",
    type=PATH,
    metavar="PATH",
    help="Objects to correct: a COCO file, or the folder --out of simmat predict.",
)
@config_options("foundation", "checkpoint", "image_size", "regions", "nodata")
@network_options
@click.option(
    "--no-browser", is_flag=True, help="Do not open the page, only print its address."
)
@config_options("device")
def annotate(
    folder: Path,
    modality: str | None,
    modality_options: dict[str, Any] | None,
    channels: tuple[str | int, ...] | None,
    bundle: Path | None,
    predictions: Path | None,
    foundation: str | None,
    checkpoint: Path | None,
    image_size: int | None,
    regions: str | None,
    nodata: Any,
    port: int | None,
    host: str,
    allow_host: tuple[str, ...],
    no_browser: bool,
    device: str | None,
) -> int:
    """Label the images of DIR in the browser: a click on an object writes its mask to DIR/masks.

    DIR contains images/ or a manifest.csv. Every step writes masks, classes and card.toml in the form that `simmat
    train` reads. All steps can be undone, even after a restart. By default only this machine can open the page, at the
    printed address with its token.

    Images with an object that you accepted unchanged from a model are listed in DIR/predicted.csv. They are used for
    training, but not for validation and test until you draw or click the object again, or confirm it (V).

    The model is that of --bundle, or the untuned model of --foundation. Without either, it is the last model trained
    from the page that scored better than the one before, or else the foundation model `lite`.
    """
    from simmat.api import load
    from simmat.sensors.adapter import options_of, with_data_card
    from simmat_plugin_annotate.annotator import Annotator
    from simmat_plugin_annotate.models import ServedModel
    from simmat_plugin_annotate.serve import listen
    from simmat_plugin_annotate.serve import serve as serve_page
    from simmat_plugin_annotate.state import locked_folder

    if bundle is not None and (
        foundation is not None or channels is not None or image_size is not None
    ):
        raise ConfigError(
            "--bundle has its own foundation model, channels and image size; leave those options out"
        )
    registry = load_registry()
    device = device or "auto"

    def tuned(path: Path) -> ServedModel:
        return ServedModel(
            load(path, checkpoint=checkpoint, device=device, registry=registry),
            path.name,
        )

    given = None if bundle is None else tuned(bundle)
    if modality is not None:
        adapter = registry.modality(modality, modality_options, channels=channels)
    elif given is not None:
        used = given.predictor.bundle
        assert used is not None
        fitted = with_data_card(
            used.modality, used.spec.card.model_dump(exclude={"nodata"})
        )  # that of the folder counts
        adapter = fitted.with_options(modality_options or {})
    else:
        raise ConfigError(
            "--modality is missing: name the sensor of the images, or give a --bundle"
        )

    def first(labels: LabelFolder) -> ServedModel:
        if given is not None:
            return given
        if foundation is None and (stored := labels.stored_bundle()) is not None:
            return tuned(stored)
        name = foundation or registry.default_foundation()
        assert modality is not None
        predictor = load(
            foundation=name,
            modality=modality,
            modality_options=options_of(labels.adapter),
            channels=channels,
            checkpoint=checkpoint,
            image_size=image_size,
            device=device,
            registry=registry,
        )
        return ServedModel(predictor, name)

    def train_arguments(labels: LabelFolder, model: ServedModel) -> list[str]:
        """Return the arguments of `simmat train`: the sensor and the foundation model of the session."""
        spec = None if model.predictor.bundle is None else model.predictor.bundle.spec
        arguments = {
            "--modality": modality
            or (labels.adapter.name if spec is None else spec.modality),
            "--device": device,
            "--foundation": foundation if spec is None else spec.foundation,
            "--image-size": image_size if spec is None else spec.image_size,
            "--checkpoint": checkpoint,
            "--channels": None if channels is None else ",".join(map(str, channels)),
        }
        return [
            word
            for name, value in arguments.items()
            if value is not None
            for word in (name, str(value))
        ]

    token = os.environ.get(ANNOTATE_TOKEN)
    with (
        ended_by_sigterm(),
        listen(host, port, allow_host) as listener,
        locked_folder(folder),
    ):
        annotator = Annotator(
            folder,
            adapter,
            {"regions": regions, "nodata": nodata},
            first,
            train_arguments,
            tuned,
            predictions,
            {} if given is None else alignment_of(given, adapter),
        )
        if unknown := annotator.predictions.unknown:
            echo(
                f"note: {len(unknown)} images of {predictions} are not in {folder}, such as {unknown[0]}",
                err=True,
            )
        echo(
            f"{len(annotator.folder.images)} images in {annotator.folder.root}, model {annotator.service.model.name}"
        )
        serve_page(
            annotator,
            listener,
            host=host,
            browser=not no_browser,
            echo=echo,
            allowed=allow_host,
            token=token,
        )
    return 0


def alignment_of(model: ServedModel, adapter: ModalityAdapter) -> dict[str, object]:
    """Return the data card's field `alignment` of a bundle of this sensor: it states the same rig of cameras."""
    assert model.predictor.bundle is not None
    spec = model.predictor.bundle.spec
    card = spec.card.model_dump(mode="json")
    if "alignment" not in card or spec.modality != adapter.name:
        return {}
    return {"alignment": card["alignment"]}


_limit = partial(click.option, type=click.IntRange(1), show_default=True, metavar="INT")


@click.command("serve", short_help="Serve a model over HTTP.")
@click.argument("bundle", type=PATH)
@foundation_options
@network_options
@_limit("--max-mb", default=256, help="Size of an upload, in 10^6 bytes.")
@_limit("--max-megapixels", default=64, help="Size of an image.")
@_limit("--max-clients", default=256, help="Connections at once.")
@_limit(
    "--keep-gb",
    default=4,
    help="Disk space for the images of clients; the least recently used are removed.",
)
@config_options("device")
def serve(
    bundle: Path,
    foundation: str | None,
    checkpoint: Path | None,
    port: int | None,
    host: str,
    allow_host: tuple[str, ...],
    max_mb: int,
    max_megapixels: int,
    max_clients: int,
    keep_gb: int,
    device: str | None,
) -> int:
    """Serve BUNDLE over HTTP: clients send an image, then ask for masks of clicks, all objects, or classes.

    The model is described at /model, the requests at /openapi.json. They need the printed token, as the header
    Authorization: Bearer TOKEN. By default the server answers only this machine. Images are files as the sensor wrote
    them; they are kept in a temporary folder, which is removed at the end.
    """
    from simmat.api import load
    from simmat.io.limits import LIMIT_VARIABLE, decoded_limit
    from simmat_plugin_annotate.models import ServedModel
    from simmat_plugin_annotate.serve import listen, server_of
    from simmat_plugin_annotate.serve_app import MAX_PROMPT, make_serve_app
    from simmat_plugin_annotate.uploads import Uploads, client_folder

    predictor = load(
        bundle,
        foundation=foundation,
        checkpoint=checkpoint,
        device=device or "auto",
        registry=load_registry(),
    )
    pixels = max_megapixels * 10**6
    # float32; an alpha plane counts, too
    decoded = pixels * 4 * max(len(predictor.channels), 4)
    # no file is decoded that has more
    os.environ[LIMIT_VARIABLE] = repr(min(decoded, decoded_limit()) / 2**30)
    limits = {"bytes": max_mb * 10**6, "pixels": pixels, "clients": max_clients}
    with (
        suppress(KeyboardInterrupt),
        ended_by_sigterm(),
        listen(host, port, allow_host) as listener,
        client_folder() as home,
    ):
        uploads = Uploads(predictor, home, max_pixels=pixels, max_bytes=keep_gb * 10**9)
        server, address = server_of(
            make_serve_app(ServedModel(predictor, bundle.name), uploads, limits),
            listener,
            host=host,
            allowed=allow_host,
            token=os.environ.get(SERVE_TOKEN),
            upload=limits["bytes"],
            body=MAX_PROMPT,
            clients=max_clients,
        )
        echo(address)
        server.run(sockets=[listener])
    return 0

"""The command `simmat labelstudio`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from simmat.cli import ended_by_sigterm
from simmat.cli.options import PATH, config_options, foundation_options, load_registry
from simmat.errors import ConfigError
from simmat.terminal import echo


@click.command("labelstudio", short_help="Serve a model to Label Studio.")
@click.argument("bundle", required=False, type=PATH, metavar="[BUNDLE]")
@click.option(
    "--data",
    required=True,
    type=PATH,
    metavar="DIR",
    help="Folder of the images, or a data set.",
)
@config_options("modality", "modality_options", "channels")
@foundation_options
@config_options("image_size")
@click.option(
    "--semantic",
    is_flag=True,
    help="Pre-annotate with the class of every pixel instead of objects.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=9090,
    show_default=True,
    metavar="INT",
    help="Port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name or address by which Label Studio and browsers reach this server.  [repeatable]",
)
@click.option(
    "--label-studio",
    multiple=True,
    default=("http://localhost:8080", "http://127.0.0.1:8080"),
    show_default=True,
    metavar="URL",
    help="Address of Label Studio in the browser; only its pages may read the images.  [repeatable]",
)
@config_options("device")
def command(
    bundle: Path | None,
    data: Path,
    semantic: bool,
    port: int,
    host: str,
    allow_host: tuple[str, ...],
    label_studio: tuple[str, ...],
    device: str | None,
    **model: Any,
) -> None:
    """Serve BUNDLE to Label Studio as an ML backend, and show it the images of DIR as pictures.

    A click or a box in Label Studio is answered with a mask of the sensor's own file in DIR, with all its channels; a
    task names the file by its field `sample`. Without a prompt, all objects are found. The page / lists what Label
    Studio needs: tasks, labelling configuration and the address of the model.

    BUNDLE may be the address that `simmat serve` prints on another machine; its token can be in the environment
    variable SIMMAT_SERVE_TOKEN. Without BUNDLE, --foundation NAME --modality NAME uses the untuned foundation model.
    """
    from simmat_plugin_annotate.remote import RemotePredictor
    from simmat_plugin_annotate.serve import LOCAL, limited_server, listen

    from simmat.api import load
    from simmat.data.dataset import open_images
    from simmat.io.paths import url_of
    from simmat.predictor import Predictor
    from simmat_plugin_labelstudio.backend import Backend
    from simmat_plugin_labelstudio.server import make_app

    own = ["localhost", "127.0.0.1"] if host in LOCAL else [host]
    hosts = [*allow_host, *own]
    given = {name: value for name, value in model.items() if value is not None}
    name = str(model["foundation"]) if bundle is None else bundle.resolve().name
    predictor: Predictor | RemotePredictor
    if bundle is not None and (server := url_of(bundle)) is not None:
        if given:
            raise ConfigError(
                f"a model on a server has its own settings; leave --{min(given).replace('_', '-')} out"
            )
        predictor = RemotePredictor(server, load_registry())
        name = predictor.name
    else:
        predictor = load(
            bundle, device=device or "auto", registry=load_registry(), **given
        )
    if semantic and predictor.dense is None:
        raise ConfigError(
            "--semantic needs a model with a dense head; train one with --heads prompt,dense"
        )
    images = open_images(data, predictor.adapter)
    address = f"http://{hosts[0]}:{port}"
    backend = Backend(predictor, name, images, address, semantic=semantic)
    app = make_app(backend, hosts, [url.rstrip("/") for url in label_studio])
    with (
        listen(host, port, allow_host) as listener,
        suppress(KeyboardInterrupt),
        ended_by_sigterm(),
    ):
        echo(
            f"{len(backend.samples)} images of {data}, model {backend.version}; see {address} (Ctrl-C ends)"
        )
        limited_server(app).run(sockets=[listener])

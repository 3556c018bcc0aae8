"""The command `simmat serve`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

from simmat.cli.common import PATH, Command, ended_by_sigterm, load_registry
from simmat.cli.options import config_options, foundation_options
from simmat.terminal import say
from simmat_plugin_annotate.command import network_options

TOKEN_VARIABLE = "SIMMAT_SERVE_TOKEN"
"""Environment variable with the token; the default is a random token at each start."""


def _limit(name: str, default: int, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.IntRange(1), default=default, show_default=True, metavar="INT", help=text)


@click.command("serve", short_help="Serve a model over HTTP.")
@click.argument("bundle", type=PATH)
@foundation_options
@network_options
@_limit("--max-mb", 256, "Size of an upload, in 10^6 bytes.")
@_limit("--max-megapixels", 64, "Size of an image.")
@_limit("--max-clients", 256, "Connections at once.")
@_limit("--keep-gb", 4, "Disk for the images of clients; those used longest ago are dropped.")
@config_options("device")
def command(
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
    Authorization: Bearer TOKEN. By default the server answers this machine only. Images are files as the sensor wrote
    them; they are kept in a temporary folder, which is removed at the end.
    """
    from simmat.api import load
    from simmat.io.images.limits import LIMIT_VARIABLE, decoded_limit
    from simmat_plugin_annotate.door import make_door
    from simmat_plugin_annotate.models import Model
    from simmat_plugin_annotate.serve import listen, server_of
    from simmat_plugin_annotate.uploads import Uploads

    predictor = load(
        bundle, foundation=foundation, checkpoint=checkpoint, device=device or "auto", registry=load_registry()
    )
    pixels = max_megapixels * 10**6
    decoded = pixels * 4 * max(len(predictor.channels), 4)  # float32; an alpha plane counts, too
    os.environ[LIMIT_VARIABLE] = repr(min(decoded, decoded_limit()) / 2**30)  # no file is decoded that has more
    limits = {"bytes": max_mb * 10**6, "pixels": pixels, "clients": max_clients}
    with (
        listen(host, port, allow_host) as listener,
        tempfile.TemporaryDirectory(prefix="simmat-serve-", ignore_cleanup_errors=True) as home,
        suppress(KeyboardInterrupt),
        ended_by_sigterm(),
    ):
        uploads = Uploads(predictor, Path(home), max_pixels=pixels, max_bytes=keep_gb * 10**9)
        server, address = server_of(
            make_door(Model(predictor, bundle.name), uploads, limits),
            listener,
            host=host,
            allowed=allow_host,
            token=os.environ.get(TOKEN_VARIABLE),
            upload=limits["bytes"],
            clients=max_clients,
        )
        say(address)
        server.run(sockets=[listener])
    return 0

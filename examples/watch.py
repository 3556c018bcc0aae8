"""Cut out the object at one place of each image, by the model of `simmat serve`: see docs/extending.md, A host."""

import sys
from pathlib import Path

from PIL import Image
from simmat_plugin_annotate.client import Client, ServerError


def watch(address, out, point, files):
    """Write the mask of the object at a point (x, y) of each file, and print its size."""
    client = Client(address)
    for file in files:
        try:
            client.set_image(file)
            mask = client.predict([point])[0]  # mask (H, W) bool, score, area, class
        except ServerError as error:
            print(f"{file.name}: {error}", file=sys.stderr)
            continue
        Image.fromarray(mask["mask"]).save(out / f"{file.stem}_mask.png")
        print(f"{file.name}: {mask['area']} pixels, score {mask['score']:.2f}")


if __name__ == "__main__":
    address, out, x, y, *names = sys.argv[1:]
    watch(address, Path(out), (float(x), float(y)), [Path(name) for name in names])

"""A browser never shows what it kept of another image, and images do not show each other's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from annotate_server import gray_images, served
from PIL import Image
from runs import registry


def planes(
    home: Path, path: Path, memory: Any = None, nodata: float | None = None
) -> Any:
    from simmat_plugin_annotate.planes import ImageCache, Planes

    gray = registry().modality("gray", {} if nodata is None else {"nodata": nodata})
    return Planes(gray, {"gray": path}, memory or ImageCache(), home)


def test_a_tile_is_kept_by_the_browser_under_the_digest_of_its_image_alone(
    tmp_path: Path,
) -> None:
    """Two folders are served at the same address, one after the other, with images of the same names."""
    root = gray_images(tmp_path / "set")
    with served(root) as client:
        key = client.keys()["s0"]
        digest = client.get(f"/api/images/{key}")["digest"]
        path = f"/api/images/{key}/tiles/0/0/0"
        kept = {
            query: client.raw("GET", path + query)[1]["cache-control"]
            for query in ("", "?v=x", f"?v={digest}")
        }
    assert kept == {
        "": "no-store",
        "?v=x": "no-store",
        f"?v={digest}": "private, max-age=3600",
    }


def test_the_digest_follows_folder_content_and_nodata(tmp_path: Path) -> None:
    """All that the values of a tile follow from."""
    first, second = (
        gray_images(tmp_path / name, count=1) / "images/s0.png" for name in "ab"
    )
    digests = {
        planes(tmp_path, first).digest,
        planes(tmp_path, second).digest,
        planes(tmp_path, first, nodata=7).digest,
    }
    Image.fromarray(np.zeros((40, 57), np.uint8)).save(first)
    digests.add(planes(tmp_path, first).digest)
    assert len(digests) == 4


def test_images_with_one_memory_keep_to_their_own_nodata(tmp_path: Path) -> None:
    """What is in memory is found by all that it follows from, not by the first file."""
    from simmat_plugin_annotate.planes import ImageCache

    path, memory = tmp_path / "a.png", ImageCache()
    Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (8, 1))).save(path)
    _, plain = planes(tmp_path, path, memory=memory).tile(0, 0, 0, [0])
    _, holes = planes(tmp_path, path, memory=memory, nodata=7).tile(0, 0, 0, [0])
    assert plain != holes

"""The web pages of a gallery: index.html lists its bundles, and NAME.html runs one in a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from simmat.bundle import SUFFIX, load_bundle
from simmat.errors import ConfigError, OutputError, SimMATError
from simmat.io.files import atomic_write_text
from simmat.plugins.registry import Registry
from simmat_plugin_hub.gallery import GalleryEntry

PAGE_NAME = "index.html"
"""The page that lists the bundles."""
_OURS = b'<meta name="generator" content="simmat bundle index">'
_SCORES = {
    "miou_object": "mean IoU of objects",
    "ap50": "AP50 without a click",
}
"""Score -> what it is called on that page."""


def check_pages(folder: Path) -> None:
    """Check that pages can be made in the folder of a gallery, before anything is written.

    Raises:
        ConfigError: simmat-plugin-export is missing or has no built page, a bundle has the name of the list, or the
            list would replace a page of somebody else.
    """
    try:
        from simmat_plugin_export.html import check_built
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise ConfigError(
            f"--html makes web pages with simmat-plugin-export, but {missing} is missing: pip install "
            "'simmat-plugin-hub[html]', or leave --html out"
        ) from error
    check_built()
    page = folder / PAGE_NAME
    if page.is_dir() or (page.is_file() and _OURS not in page.read_bytes()):
        raise ConfigError(
            f"{page} is not a list of bundles that simmat wrote, and --html would replace it; move it away, or leave "
            "--html out"
        )
    for file in folder.glob(f"*{SUFFIX}"):
        if f"{file.stem}.html".lower() == PAGE_NAME:
            raise ConfigError(
                f"{file}: its page would have the name of the list, {PAGE_NAME}; rename the file"
            )


def make_pages(
    folder: Path,
    entries: Sequence[GalleryEntry],
    registry: Registry,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> dict[str, str]:
    """Write NAME.html, or for one of several sensors NAME/SENSOR.html, of each bundle that a browser can run.

    Args:
        folder: of the gallery, which `check_pages` has accepted.
        entries: of its index.
        registry: what is installed.
        progress: called with each page that is made, and its steps.

    Returns:
        Name of an entry -> why it has no page.

    Raises:
        OutputError: a page cannot be written.
    """
    refused = {}
    for entry in entries:
        try:
            _make_page(folder, entry, registry, progress)
        except OutputError:
            raise
        except SimMATError as error:
            refused[entry.name] = str(error)
    return refused


def _make_page(
    folder: Path,
    entry: GalleryEntry,
    registry: Registry,
    progress: Callable[[str], None],
) -> None:
    from simmat_plugin_export.html import export_page, read_picture

    _, _, sensor = entry.name.partition("/")
    picture = ""
    if entry.picture is not None:
        picture = read_picture(folder / entry.picture)
    file = folder / f"{entry.name}.html"
    size = export_page(
        load_bundle(folder / entry.file / sensor, registry, device="cpu"),
        file,
        title=entry.name,
        picture=picture,
        progress=lambda step: progress(f"{entry.name}: {step}"),
    )
    progress(f"{file}: {size / 2**20:.1f} MiB")


def write_list(
    folder: Path, entries: Sequence[GalleryEntry], without_page: Sequence[str] = ()
) -> Path:
    """Write index.html, which lists the bundles of a gallery with picture, scores and licence.

    Args:
        without_page: names of the entries that cannot be tried in a browser.

    Raises:
        OutputError: the page cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    source = resources.files("simmat_plugin_hub").joinpath("gallery.html.j2")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    page = folder / PAGE_NAME
    text = template.render(entries=entries, scores=_SCORES, without_page=without_page)
    atomic_write_text(page, text)
    return page

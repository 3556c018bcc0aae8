"""The pages of the sensors: each sensor has one, and the commands on it run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from installed import need_plugins

from simmat.cli import group
from simmat.plugins.loader import load_plugins

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "sensors"
INDEX = FOLDER / "index.md"
PACKAGES = (
    "aims",
    "depth",
    "microscopy",
    "multispectral",
    "nir",
    "polarization",
    "sar",
    "thermal",
)
SMALL = "--steps 2 --image-size 64 --batch-size 2 --device cpu --no-pictures"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page != INDEX)


def _pages() -> dict[str, Path]:
    """Return the name of a sensor -> its page, by the table of the index."""
    pages = {}
    rows = re.findall(
        r"^\| \[.*\]\((.*)\) \| (.*) \|$",
        INDEX.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    for page, names in rows:
        for name in re.findall("`(.*?)`", names):
            pages[name] = (FOLDER / page).resolve()
    return pages


def test_each_sensor_has_a_page() -> None:
    """A user looks for the sensor, not for the package that brings it."""
    need_plugins(*PACKAGES)
    registry = load_plugins()
    ours = {"simmat", *(f"simmat-plugin-{name}" for name in PACKAGES)}
    names = {
        adapter.name
        for adapter in registry.all("modality")
        if registry.owner("modality", adapter.name).split()[0] in ours
    }
    pages = _pages()
    assert set(pages) == names
    unnamed = [
        name
        for name, page in pages.items()
        if not re.search(rf"(`|--modality ){name}\b", page.read_text(encoding="utf-8"))
    ]
    assert unnamed == []


def test_each_page_is_in_the_index_and_in_the_site() -> None:
    """A page that nothing links is not found."""
    listed = set(_pages().values())
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in FOLDER.glob("*.md"):
        assert page == INDEX or page in listed
        assert f" sensors/{page.name}\n" in navigation


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files to masks, as it is written there; two small steps in place of a training."""
    need_plugins(*PACKAGES, "lite", "scenes", "report")
    text = page.read_text(encoding="utf-8")
    (simulate,) = re.findall("`(simmat data simulate [^`]*)`", text)
    (block,) = re.findall(r"^```\n(simmat data check .*?)```$", text, re.M | re.S)
    commands = [f"{simulate} --count 6", *block.splitlines()]
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words += SMALL.split()
        result = CliRunner().invoke(group, words)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert list(Path("OUT").glob("*_objects.png"))

"""The page that says what may be used commercially, and where it is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from installed import need_plugins

from simmat.cli import run
from simmat.plugins.loader import load_plugins

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
PACKAGES = ("lite", "sam", "timm", "transformers", "unet")


def test_each_foundation_model_has_a_row_with_its_licence() -> None:
    """Someone builds a product on what this table says."""
    need_plugins(*PACKAGES)
    registry = load_plugins()
    rows = {}
    for names, rest in re.findall(
        r"^\| (`.*?) \| (.*) \|$",
        PAGE.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    ):
        for name in re.findall("`(.*?)`", names):
            rows.setdefault(name, rest)
    ours = {*(f"simmat-plugin-{name}" for name in PACKAGES), "simmat-testing"}
    for model in registry.all("foundation model"):
        if registry.owner("foundation model", model.name).split()[0] in ours:
            assert model.licence in rows[model.name]
    for family in registry.all("foundation family"):
        if registry.owner("foundation family", family.name).split()[0] in ours:
            assert f"{family.name}/NAME" in rows


def test_the_list_of_models_names_the_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever picks a model reads the list, not the site."""
    assert run(["foundations", "list"]) == 0
    title = PAGE.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    assert f"the page '{title}'" in capsys.readouterr().out

"""README and pages: their Python runs, their commands and links exist, their lists are whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import pytest
from installed import need_plugins

from simmat.cli import group
from simmat.plugins.loader import load_plugins

ROOT = Path(__file__).parents[2]
PAGES = [
    pytest.param(ROOT / "README.md", id="README.md"),
    pytest.param(ROOT / "docs" / "python.md", id="python.md", marks=pytest.mark.slow),
]
SMALL = "steps=2, image_size=64, batch_size=2, prompts_per_image=1, device='cpu', pictures=False, progress=False"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of the start page, with three images; and a photograph of the same size."""
    need_plugins("thermal", "lite", "scenes")
    from simmat_plugin_scenes.dataset import SIZE_HW, simulate_dataset

    from simmat.plugins.loader import load_plugins

    folder = tmp_path_factory.mktemp("pages")
    simulate_dataset(
        load_plugins().modality("thermal"),
        folder / "scenes",
        count=3,
        seed=0,
        size_hw=SIZE_HW,
    )
    simulate_dataset(
        load_plugins().modality("rgb"), folder / "rgb", count=3, seed=0, size_hw=SIZE_HW
    )
    shutil.copy(next((folder / "rgb/images").rglob("*.png")), folder / "photo.png")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(
    page: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first thing that a data scientist copies; two small steps in place of eighty."""
    import simmat

    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    assert "steps=80" in code
    monkeypatch.chdir(tmp_path)
    for path in scenes.iterdir():
        (tmp_path / path.name).symlink_to(path)
    names: dict[str, object] = {}
    exec(compile(code.replace("steps=80", SMALL), str(page), "exec"), names)
    assert simmat.load("run-from-python", device="cpu").adapter.name == "thermal"


def test_the_list_of_packages_names_what_each_brings() -> None:
    """The error for an unknown name sends people there; the core knows no package by what it brings."""
    from simmat.plugins.loader import load_plugins

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(
            r"^\| `(simmat[\w-]*)` (?:\(the core\) )?\| (.*) \|$", readme, re.MULTILINE
        )
    )
    kinds = (
        "modality",
        "foundation model",
        "foundation family",
        "transfer layer",
        "command",
    )
    for report in load_plugins().reports:
        if report.distribution in rows and report.distribution != "simmat":
            names = [name for kind in kinds for name in report.gives.get(kind, ())]
            assert [
                name
                for name in names
                if name.split()[-1] not in rows[report.distribution]
            ] == []


COMMANDS_PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
COMMAND = re.compile(r"(?:^\$ |^|`)(simmat [a-z][^`\n]*)", re.MULTILINE)


def _unknown(text: str) -> list[str]:
    """Return the words of a command line that are neither commands nor options of the command before them."""
    command: click.Command = group
    context = click.Context(group, info_name="simmat")
    words = text.partition(" #")[0].split()[1:]
    while words and isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return [name]
        command, context = found, click.Context(found, parent=context, info_name=name)
    options = {
        "--help",
        *(
            option
            for param in command.params
            for option in (*param.opts, *param.secondary_opts)
        ),
    }
    return [
        word
        for word in words
        if re.match("--[a-z]", word) and word.partition("=")[0] not in options
    ]


@pytest.mark.parametrize(
    "page",
    COMMANDS_PAGES,
    ids=[f"{page.parent.name}/{page.name}" for page in COMMANDS_PAGES],
)
def test_a_page_names_only_what_exists(page: Path) -> None:
    """A command that was renamed leaves the reader with an error."""
    need_plugins(
        "aims",
        "align",
        "annotate",
        "bench",
        "convert",
        "distill",
        "export",
        "labelstudio",
        "report",
        "scenes",
    )
    wrong = {
        line: bad
        for line in COMMAND.findall(page.read_text(encoding="utf-8"))
        if (bad := _unknown(line))
    }
    assert wrong == {}


PAGE = Path(__file__).parents[2] / "docs" / "parts.md"


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies them has a start that works."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 7
    assert (tmp_path / "run/bundle.safetensors").is_file()


LICENCES_PAGE = ROOT / "docs" / "licences.md"
PACKAGES = ("lite", "sam", "timm", "transformers", "unet")


def test_each_foundation_model_has_a_row_with_its_licence() -> None:
    """Someone builds a product on what this table says."""
    need_plugins(*PACKAGES)
    registry = load_plugins()
    rows = {}
    for names, rest in re.findall(
        r"^\| (`.*?) \| (.*) \|$",
        LICENCES_PAGE.read_text(encoding="utf-8"),
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

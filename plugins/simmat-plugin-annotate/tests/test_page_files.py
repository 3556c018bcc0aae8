"""The page's files: what its content security policy and being offline demand."""

import posixpath
import re
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

STATIC = Path(__file__).parents[1] / "src/simmat_plugin_annotate/static"
TEXTS = {
    file.relative_to(STATIC).as_posix(): file.read_text(encoding="utf-8")
    for file in STATIC.rglob("*")
    if file.is_file()
}


def imports_of(name: str) -> set[str]:
    """Return the modules that a file imports, by their paths in the folder."""
    folder = PurePosixPath(name).parent
    found = re.findall(r'(?:from|import) "(\.[\w./]+)"', TEXTS[name])
    return {posixpath.normpath(folder / path) for path in found}


def test_the_page_has_no_inline_script_or_style():
    """The content security policy refuses both."""
    page = TEXTS["index.html"]
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_nothing_is_loaded_from_elsewhere(name):
    """It works offline, and tells nobody what is labelled."""
    found = re.findall(
        r"(?:https?:)?//[\w.-]+\.\w+",
        TEXTS[name].replace("http://www.w3.org/2000/svg", ""),
    )
    assert not found


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if name.endswith(".js")))
def test_no_text_of_a_file_is_read_as_html_or_code(name):
    """File and class names come from strangers."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function",
        TEXTS[name],
    )


def test_every_module_and_style_that_is_named_exists():
    """A missing module stops the whole page."""
    named = set(re.findall(r'"/static/([\w.]+)"', TEXTS["index.html"]))
    for name in TEXTS:
        named |= imports_of(name)
    assert named <= TEXTS.keys()


def test_no_modules_import_each_other_in_a_circle():
    """A module can be read after those that it imports."""
    imports = {name: imports_of(name) for name in TEXTS}
    assert "main.js" in list(TopologicalSorter(imports).static_order())


def test_every_id_that_the_modules_look_for_is_in_the_page():
    """A renamed element would be found only by using it."""
    wanted = {
        name
        for text in TEXTS.values()
        for name in re.findall(r'byId\("([\w-]+)"\)', text)
    }
    assert wanted <= set(re.findall(r'id="([\w-]+)"', TEXTS["index.html"]))


def test_what_the_signs_of_the_list_mean_is_written_there():
    """A sign without a word is a riddle."""
    legend = TEXTS["index.html"].split('id="legend"')[1].split("</p>")[0]
    assert set("✓●◇○") <= set(legend)

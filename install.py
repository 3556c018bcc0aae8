"""Install packages of this clone, and what they require, into the environment of the Python that runs this file.

    python install.py thermal annotate "sequences[nifti]"

A package is named by its whole name or by the end of it: `thermal` is simmat-plugin-thermal. The packages of this clone
that it requires are installed from this clone, too, and everything else from the package index.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit("error: SimMAT needs Python 3.11 or newer")

ROOT = Path(__file__).resolve().parent
PREFIXES = ("", "simmat-plugin-", "simmat-")
BUILD_TOOL = "setuptools>=77.0.1"
"""What builds every package; the same requirement stands in each pyproject.toml."""
UV_OPTIONS = ("constraint", "extra-index-url", "find-links", "index-url")
"""Settings of pip that are options of uv."""


def read_projects() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return name -> folder and [project] table of each package of this clone."""
    files = [ROOT / "pyproject.toml"]
    files += sorted(ROOT.glob("plugins/*/pyproject.toml"))
    files += sorted(ROOT.glob("examples/*/pyproject.toml"))
    projects = {}
    for file in files:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        projects[project["name"]] = (file.parent, project)
    return projects


def split_requirement(requirement: str) -> tuple[str, list[str]]:
    """Return the name and the extras of a requirement such as `simmat-plugin-sequences[nifti,dicom]>=0.1`."""
    found = re.match(r"([\w.-]+)\s*(?:\[([^\]]*)\])?", requirement)
    if found is None:
        return requirement, []
    extras = (found[2] or "").replace(" ", "").split(",")
    return found[1], [extra for extra in extras if extra]


def find_required(
    requirements: Iterable[str], projects: dict[str, tuple[Path, dict[str, Any]]]
) -> list[str]:
    """Return the names of these packages and of all packages of this clone that they require."""
    required: list[str] = []
    waiting = list(requirements)
    seen = set()
    while waiting:
        name, extras = split_requirement(waiting.pop())
        if name not in projects:
            continue
        if name not in required:
            required.append(name)
        _, project = projects[name]
        needs = {"": project["dependencies"]}
        needs.update(project.get("optional-dependencies", {}))
        for extra in ["", *extras]:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += needs[extra]
    return sorted(required)


def full_requirement(
    word: str, projects: dict[str, tuple[Path, dict[str, Any]]]
) -> str:
    """Return the requirement that a user means: `thermal` is simmat-plugin-thermal; ValueError if there is none."""
    if not re.fullmatch(r"[\w.-]+(\[[\w,. -]+\])?", word):
        raise ValueError(
            f"{word!r} is no name of a package, such as thermal or 'sequences[nifti,dicom]'"
        )
    short, extras = split_requirement(word)
    known = ", ".join(name.removeprefix("simmat-plugin-") for name in projects)
    for prefix in PREFIXES:
        name = prefix + short
        if name not in projects:
            continue
        _, project = projects[name]
        allowed = list(project.get("optional-dependencies", {}))
        unknown = [extra for extra in extras if extra not in allowed]
        if unknown:
            raise ValueError(
                f"{name} has no extra {', '.join(unknown)}; its extras: {', '.join(allowed) or 'none'}"
            )
        if extras:
            return f"{name}[{','.join(extras)}]"
        return name
    raise ValueError(f"no package {short!r} in this clone; choose from: {known}")


def pip_install(*arguments: str | Path) -> None:
    """Run `pip install`; if it fails, exit with its code."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run([*command, *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def uv_options(pip_settings: str) -> list[str]:
    """Return what `pip config list` says of places and limits as options of uv, which does not read it."""
    options = []
    for line in pip_settings.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in UV_OPTIONS:
            for word in str(ast.literal_eval(value)).split():
                options += [f"--{name}", word]
    return options


def uv_install(
    folders: list[str | Path], requirements: list[str], *, is_compiled: bool
) -> bool:
    """Install with uv, which takes a quarter of pip's time; return whether it did."""
    python = [sys.executable, "-m"]
    settings = [*python, "pip", "config", "list"]
    listed = subprocess.run(settings, capture_output=True, text=True, check=False)
    uv = [*python, "uv", "pip", "install", "--python", sys.executable]
    uv += uv_options(listed.stdout)
    for command in (
        [*python, "pip", "install", "--disable-pip-version-check", "--quiet", "uv"],
        [*uv, "--quiet", BUILD_TOOL],
        [*uv, "--quiet", "--no-deps", "--no-build-isolation", *folders],
        [*uv, *(["--compile-bytecode"] if is_compiled else []), *requirements],
    ):
        if subprocess.run(command, check=False).returncode:
            print("uv could not install these; now with pip", flush=True)
            return False
    return True


def main() -> None:
    """Install the packages that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    parser.add_argument(
        "--editable",
        action="store_true",
        help="use the code of this clone, with later changes, instead of a copy",
    )
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="let Python compile modules when they are first imported",
    )
    parser.add_argument(
        "--uv",
        action="store_true",
        help="install with uv, which is installed first; with pip if that fails",
    )
    options = parser.parse_args()
    projects = read_projects()
    requirements = []
    for word in options.packages:
        try:
            requirements.append(full_requirement(word, projects))
        except ValueError as error:
            parser.error(str(error))
    names = find_required(requirements, projects)
    print("Installing from this clone:", ", ".join(names), flush=True)
    folders: list[str | Path] = []
    for name in names:
        if options.editable:
            folders.append("--editable")
        folders.append(projects[name][0])
    if options.uv and uv_install(
        folders, requirements, is_compiled=not options.no_compile
    ):
        return
    # one build environment for all packages: pip would make one for each
    pip_install("--quiet", BUILD_TOOL)
    pip_install("--quiet", "--no-deps", "--no-build-isolation", *folders)
    # these are installed now: pip adds what they require from the index
    if options.no_compile:
        pip_install("--no-compile", *requirements)
    else:
        pip_install(*requirements)


if __name__ == "__main__":
    main()

"""Build all packages as they are published, or write a new version into them.

    python .ci/release.py build OUT [--url URL]
    python .ci/release.py bump VERSION

`build` copies each package to OUT/source, in the order in which they need each other. A copy gets what all packages
share from the pyproject.toml of the core: authors, classifiers, and project URLs, which are made from the address
under [project.urls], or --url. Relative links of its readme become addresses. `uv build` makes the sdist from the
copy, and the wheel from the sdist, in OUT/dist, with the setuptools of this environment. The metadata of each wheel
is read again and checked.

`bump` writes the version of the core, simmat/version.py, those of the plugins, and the range in which they need each
other.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import tomli_w
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = ROOT / "simmat" / "version.py"
FILES = ("LICENSE*", "README.md", "pyproject.toml", "simmat", "src")
"""What of a package's folder goes into its sdist."""
LINK = re.compile(r"(?<=\]\()(?![\w+.-]+:|#)([^)\s#]+)")
"""The relative target of a link or picture in Markdown, without its anchor."""
UV_BUILD = (
    sys.executable,
    "-m",
    "uv",
    "build",
    "--quiet",
    "--no-build-isolation",
    "--python",
    sys.executable,
)
RANGE = re.compile(r"\b(simmat[\w-]*)>=[\d.]+,<[\d.]+")


def version() -> str:
    """Return the version of all packages."""
    return VERSION_FILE.read_text(encoding="utf-8").split('"')[-2]


def packages() -> dict[str, Path]:
    """Return name -> folder of the core and its plugins, each after those that it needs."""
    projects = {}
    for file in [
        ROOT / "pyproject.toml",
        *sorted(ROOT.glob("plugins/*/pyproject.toml")),
    ]:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        projects[project["name"]] = (
            file.parent,
            {Requirement(need).name for need in project["dependencies"]},
        )
    needs = {name: needed & projects.keys() for name, (_, needed) in projects.items()}
    return {name: projects[name][0] for name in TopologicalSorter(needs).static_order()}


def project_urls(address: str) -> dict[str, str]:
    """Return the URLs of every package."""
    return {
        "Repository": address,
        "Documentation": f"{address}/tree/v{version()}/docs",
        "Changelog": f"{address}/blob/v{version()}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }


def with_addresses(readme: str, folder: Path, address: str) -> str:
    """Return a readme whose relative links, from `folder`, are addresses; FileNotFoundError for a dead one."""

    def target(found: re.Match[str]) -> str:
        path = posixpath.normpath(
            posixpath.join(folder.relative_to(ROOT).as_posix(), found[1])
        )
        place = ROOT / path
        if not place.exists():
            raise FileNotFoundError(
                f"{folder / 'README.md'} links to {found[1]}, which does not exist"
            )
        kind = (
            "tree"
            if place.is_dir()
            else "raw"
            if place.suffix in (".png", ".jpg", ".svg")
            else "blob"
        )
        return f"{address}/{kind}/v{version()}/{path}"

    return LINK.sub(target, readme)


def stage(folder: Path, to: Path, address: str) -> None:
    """Copy a package as it is published."""
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    to.mkdir(parents=True)
    for source in (found for name in FILES for found in folder.glob(name)):
        if source.is_dir():
            shutil.copytree(source, to / source.name, ignore=ignored)
        else:
            shutil.copy(source, to)
    document = tomllib.loads((to / "pyproject.toml").read_text(encoding="utf-8"))
    own = document["project"].get("classifiers", [])
    document["project"] |= {
        "authors": shared["authors"],
        "classifiers": [*own, *shared["classifiers"]],
    }
    document["project"]["urls"] = project_urls(address)
    (to / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
    readme = with_addresses(
        (to / "README.md").read_text(encoding="utf-8"), folder, address
    )
    (to / "README.md").write_text(readme, encoding="utf-8")


def faults(wheel: Path, expected: Mapping[str, Any], address: str) -> list[str]:
    """Return what the metadata of a wheel lacks, or has that an index refuses."""
    # newer than the oldest release that simmat needs
    from packaging.metadata import Metadata

    with zipfile.ZipFile(wheel) as archive:
        (home,) = (
            name for name in archive.namelist() if name.endswith(".dist-info/METADATA")
        )
        # raises an ExceptionGroup
        found = Metadata.from_email(archive.read(home), validate=True)
        licences = [
            posixpath.join(posixpath.dirname(home), "licenses", name)
            for name in found.license_files or ()
        ]
        missing = [name for name in licences if name not in archive.namelist()]
    checks = {
        "version": str(found.version) == version(),
        "licence": bool(found.license_expression and licences and not missing),
        "author": found.author == expected["authors"][0]["name"],
        "classifiers": set(found.classifiers or ()) >= {*expected["classifiers"]},
        "project URLs": found.project_urls == project_urls(address),
        "readme": found.description_content_type == "text/markdown"
        and not LINK.search(found.description or "](x)"),
    }
    return [
        f"{wheel.name}: wrong or missing {what}"
        for what, right in checks.items()
        if not right
    ]


def build(out: Path, address: str | None) -> int:
    """Build and check every package."""
    core = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    if address is None:
        address = core["urls"]["Repository"]
        if "://example." in address:
            print(
                f"note: {address} is a placeholder: fill in [project.urls] in pyproject.toml, or give --url"
            )
    address = address.rstrip("/")
    dist, found = out.resolve() / "dist", []
    for number, (name, folder) in enumerate((order := packages()).items(), 1):
        print(f"{number} of {len(order)}: {name} {version()}", flush=True)
        copy = out.resolve() / "source" / name
        stage(folder, copy, address)
        subprocess.run([*UV_BUILD, "--out-dir", dist, copy], check=True)
        (wheel,) = dist.glob(f"{name.replace('-', '_')}-*.whl")
        found += faults(wheel, core, address)
    print(
        "\n".join(found)
        or f"{len(order)} sdists and wheels in {dist}: metadata complete"
    )
    return 1 if found else 0


def bumped(text: str, new: str) -> str:
    """Return a pyproject.toml with another version, and the range of versions in which our packages need each other."""
    major, minor = map(int, new.split(".")[:2])
    text = re.sub(r'(?m)^version = ".*"$', f'version = "{new}"', text)
    return RANGE.sub(rf"\1>={major}.{minor},<{major}.{minor + 1}", text)


def release_number(text: str) -> str:
    """Return a version, which is three numbers: a range such as >=0.2,<0.3 leaves out 0.2.0rc1."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError(
            f"must be three numbers such as 0.2.0, got {text!r}"
        )
    return text


def bump(new: str) -> int:
    """Write a version into all packages."""
    for pattern in ("", "plugins/*/", "examples/*/"):
        for file in ROOT.glob(f"{pattern}pyproject.toml"):
            file.write_text(
                bumped(file.read_text(encoding="utf-8"), new), encoding="utf-8"
            )
    for file in ROOT.glob("plugins/*/*/metadata.txt"):  # of QGIS
        text = re.sub(
            r"(?m)^version=.*$", f"version={new}", file.read_text(encoding="utf-8")
        )
        file.write_text(text, encoding="utf-8")
    text = VERSION_FILE.read_text(encoding="utf-8")
    VERSION_FILE.write_text(
        text.replace(f'"{version()}"', f'"{new}"'), encoding="utf-8"
    )
    return 0


def main() -> int:
    """Read the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    builds = commands.add_parser("build")
    builds.add_argument("out", type=Path)
    builds.add_argument("--url")
    commands.add_parser("bump").add_argument("version", type=release_number)
    given = parser.parse_args()
    return (
        bump(given.version) if given.command == "bump" else build(given.out, given.url)
    )


if __name__ == "__main__":
    sys.exit(main())

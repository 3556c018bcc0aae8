"""Throw-away environments and packages: what is installed in a test is gone after it."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

ADAPTER = """
    from simmat.plugins.hooks import hookimpl
    from simmat.sensors.adapter import ModalityAdapter, Source
    from simmat.types import Channel


    class Adapter(ModalityAdapter):
        name = "NAME"
        description = "a sensor"
        sources = (Source("NAME", (".png",)),)
        channels = (Channel("NAME", "counts", "count"),)

        def load(self, files):
            raise NotImplementedError


    @hookimpl
    def simmat_modalities():
        return [Adapter()]
"""


def make_venv(folder: Path, *, without: str = "simmat_plugin_sonar") -> Path:
    """Make a virtual environment that also sees what the running one sees; return its Python.

    pip and SimMAT are those of the running environment; what is installed goes into the new one.

    Args:
        folder: of the new environment.
        without: a package that the new one must not see, as it will be installed there.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(
        subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    seen = folder / "seen"
    seen.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if without not in entry.name:
            (seen / entry.name).symlink_to(entry)
    # addsitedir, for the running environment's own .pth files (editable installs) count too.
    (site / "running.pth").write_text(
        f"import site; site.addsitedir({str(seen)!r})\n", encoding="utf-8"
    )
    for module in ("simmat", "pytest", "pip"):
        script = folder / "bin" / module
        script.write_text(
            f'#!/bin/sh\nexec "{python}" -m {module} "$@"\n', encoding="utf-8"
        )
        script.chmod(0o755)
    return python


def clean_environment() -> dict[str, str]:
    """The variables of a command: none of ours or pip's from outside, no index, no build in isolation."""
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "SIMMAT_", "PYTHON"))
    }
    return {
        **bare,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "OMP_NUM_THREADS": "1",
    }


def run_in(
    python: Path | str, *args: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in an environment, with no way to an index and no build in isolation."""
    return subprocess.run(
        [str(python), *args],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=cwd,
        env={**clean_environment(), **env},
    )


def make_wheel(
    folder: Path, package: str, source: str = ADAPTER, *, plugin: bool = True
) -> Path:
    """Write the wheel of a package with one module; `NAME` in its source becomes the last part of its name."""
    module = package.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": textwrap.dedent(source).replace(
            "NAME", package.rpartition("-")[2]
        ),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[simmat]\n{package.rpartition('-')[2]} = {module}\n"
        if plugin
        else "",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


def simmat(
    python: Path | str, *args: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `simmat` in an environment."""
    return run_in(python, "-m", "simmat", *args, cwd=cwd, **env)

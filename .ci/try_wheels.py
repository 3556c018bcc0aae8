"""Try the packages as a user has them: from a folder of wheels, in empty environments, outside of the repository.

    python .ci/try_wheels.py DIST [VERSION ...]

For each version of Python (this one, if none is given): `pip install simmat-plugin-thermal`, a training and a
prediction with that alone; all packages in one environment; and an exported model where only simmat-runtime is. uv
makes the environments; a version that it neither finds nor may fetch is skipped, with a line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

UV = (sys.executable, "-m", "uv")
CODE = """
import simmat
from simmat.geo import geo_backend
from simmat_plugin_annotate.server import STATIC

(STATIC / "index.html").read_bytes()
geo_backend("the wheel of maps")
simmat.build(foundation="mobilesam", modality="thermal", image_size=64)
"""
"""Uses files that packages have beside their modules."""
ARRAY = "import numpy; numpy.save('a.npy', 20 * numpy.random.rand(1, 96, 96) + 280)"


class Environment:
    """An empty environment, and the folder in which its commands run."""

    def __init__(self, folder: Path, python: str) -> None:
        self.home, self.work = folder, folder.parent
        self.scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
        done = subprocess.run(
            [*UV, "venv", "--quiet", "--seed", "--python", python, folder],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise LookupError(done.stderr.strip())

    def __call__(self, command: str, *arguments: str | Path) -> None:
        """Run a command of the environment: its words, and more arguments; CalledProcessError if it fails."""
        name, *words = command.split()
        print("$", command, *arguments, flush=True)
        hidden = ("PYTHONPATH", "VIRTUAL_ENV", "SIMMAT_PLUGINS")
        environment = {
            name: value for name, value in os.environ.items() if name not in hidden
        }
        environment["SIMMAT_CACHE"] = str(self.work / "cache")
        subprocess.run(
            [self.scripts / name, *words, *arguments],
            check=True,
            cwd=self.work,
            env=environment,
        )


def try_python(python: str, dist: Path, work: Path) -> None:
    """Install and use the packages; LookupError without such a Python, CalledProcessError where a command fails."""
    install = (
        "python -m pip install --quiet --disable-pip-version-check --find-links",
        dist,
    )
    names = sorted(
        wheel.name.split("-")[0].replace("_", "-") for wheel in dist.glob("*.whl")
    )
    everything = Environment(work / "everything", python)
    everything(*install, *names)
    everything("python -m pip check")
    everything("python -c", CODE)
    everything("simmat plugins list")
    everything(
        "simmat data simulate --modality thermal --count 12 --size 96 96 --out scenes"
    )

    card = Environment(work / "card", python)
    card(*install, "simmat-plugin-thermal")
    card("simmat plugins check thermal")
    card(
        "simmat train --modality thermal --data scenes --image-size 64 --steps 4 --batch-size 2 --out run"
    )
    card(
        "simmat predict run/bundle.safetensors scenes/images --everything --out objects"
    )
    card(
        "simmat predict run/bundle.safetensors --point 48,48 --out masks",
        next((work / "scenes/images").iterdir()),
    )
    card("simmat follow --help")
    if not (work / "run/report.html").stat().st_size:
        raise AssertionError("run/report.html is empty")

    bare = Environment(work / "bare", python)
    bare(*install, "simmat-runtime")
    everything("simmat export run --out onnx --html model.html")
    bare("python -c", ARRAY)
    bare("simmat-runtime predict onnx a.npy --point 48,48 --out mask.npy")


def main(folder: str, *versions: str) -> int:
    """Try each Python."""
    tried = []
    for python in versions or (sys.executable,):
        with tempfile.TemporaryDirectory(prefix="simmat-wheels-") as work:
            try:
                try_python(python, Path(folder).resolve(), Path(work).resolve())
            except LookupError as error:
                print(f"skipped: Python {python}: {error}")
            else:
                tried.append(python)
    print(
        f"wheels tried on {len(tried)} of {len(versions) or 1} Pythons: {', '.join(tried)}"
    )
    return 0 if tried else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

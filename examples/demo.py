"""The whole way on a small set of simulated scenes: simulate, click, train, click again, and a page to look at.

    python examples/demo.py --out demo-out

Thin films of water and of clear ice lie on a tiled floor. To the eye they hardly exist;
the short-wave infrared planes of a multispectral camera show them, and which is which.

Every step is a command that a user can type. The first one that fails ends the demo with its exit code. Started again
after it was stopped, the demo resumes its training; after it was done, it begins anew.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.instances import center_click
from simmat.plugins.loader import load_plugins
from simmat.training.run_folder import RunFolder

MARK = ".simmat-demo"
"""This file says that a folder was made by the demo and may be replaced."""
PAGE = "index.html"
"""The last file that the demo writes."""

SENSOR = ("--modality", "multispectral")
SCENES = 48
TRAINING = ("--image-size", "128", "--batch-size", "2", "--val-every", "60")
"""With these, 120 steps take about a minute on two cores."""
COMMANDS = 6


class Terminal:
    """Runs commands, and counts them."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.done = 0

    def run(self, purpose: str, *arguments: str | Path) -> None:
        """Run `simmat ARGUMENTS`, shown as one types it; a failure ends the demo with the command's exit code."""
        words = [str(argument) for argument in arguments]
        command = shlex.join(["simmat", *words])
        self.done += 1
        seconds = time.monotonic() - self.began
        print(f"\n[{self.done} of {COMMANDS}, after {seconds:.0f} s] {purpose}")
        print(f"$ {command}", flush=True)
        process = subprocess.Popen([sys.executable, "-m", "simmat", *words])
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # the command got the signal too; let it save its work
            code = process.wait()
        if code:
            print(
                f"error: the demo stops here, because the command above failed: {command}",
                file=sys.stderr,
            )
            sys.exit(code)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-out"),
        help="folder for everything it makes",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=120,
        help="training steps; fewer are faster and worse",
    )
    options = parser.parse_args()
    out: Path = options.out
    data, run = out / "data", out / "run"
    terminal = Terminal()
    if prepare(out):
        terminal.done = 1  # the scenes are there
        terminal.run(
            "Resume the training of the demo that was stopped", "train", "--resume", run
        )
    else:
        terminal.run(
            "Make a small set: films of water and of ice on a floor, in six bands from blue to 2.2 µm",
            "data", "simulate", *SENSOR, "--scenes", "wet-floor", "--out", data, "--count", str(SCENES), "--seed", "0",
        )  # fmt: skip
        terminal.run(
            "Train on them", "train", *SENSOR, "--data", data, "--foundation", "lite", *TRAINING,
            "--steps", str(options.steps), "--out", run,
        )  # fmt: skip
    file, (x, y) = pick_click(
        open_dataset(data, load_plugins().modality("multispectral"))
    )
    click = (file, "--point", f"{x:g},{y:g}", "--out")
    terminal.run(
        "Click an object of a scene that no model has seen: first the untuned model", "predict",
        "--foundation", "lite", *SENSOR, *click, out / "untuned",
    )  # fmt: skip
    terminal.run(
        "The tuned one, with the same click", "predict", run, *click, out / "tuned"
    )
    terminal.run(
        "Every object of the scene with its class, without a click", "predict", run, file, "--everything",
        "--out", out / "objects",
    )  # fmt: skip
    page = out / PAGE
    terminal.run(
        "Score it on scenes it has not seen, and show all",
        "report",
        run,
        "--data",
        data,
        "--out",
        page,
    )
    seconds = time.monotonic() - terminal.began
    print(f"\nDone in {seconds:.0f} s. Open this page in a browser:")
    print(f"  {page.resolve().as_uri()}")


def prepare(out: Path) -> bool:
    """Return whether an earlier demo was stopped after its training began; else empty the folder that it made.

    A folder that the demo did not make ends it.
    """
    if (out / MARK).is_file():
        if RunFolder(out / "run").config.is_file() and not (out / PAGE).is_file():
            return True
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        print(
            f"error: {out} is not empty and was not made by this demo; choose another --out",
            file=sys.stderr,
        )
        sys.exit(2)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    return False


def pick_click(dataset: Dataset) -> tuple[Path, tuple[float, float]]:
    """Return a test image, and a click on its largest object."""
    for sample in dataset.split("test"):
        label = dataset.label(sample)
        if label.regions:
            return sample.reference, center_click(
                max(label.regions, key=lambda region: region.area)
            )
    sys.exit("error: no test image holds an object")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

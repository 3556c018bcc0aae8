"""The commands that are killed, and what holds of their output at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bundles import tiny_bundle
from runs import files_of, gray_set
from simmat_plugin_report.documents import read_report

from simmat.bundle import read_sensors
from simmat.training.run_folder import RunFolder, load_state

Files = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """A command that writes into a folder of its own.

    Attributes:
        name: of the command, for people.
        first: (inputs, folder) -> its arguments.
        again: (inputs, folder) -> its arguments after a kill; None where it had finished already.
        check: (folder, files of a whole run) raises where something is half-written; called after each kill.
        varying: files whose content names the folder or a time, and so differs.
        weight: how often it is drawn: what takes long and can be resumed, the most.
    """

    name: str
    first: Callable[[Path, Path], list[str]]
    again: Callable[[Path, Path], list[str] | None]
    check: Callable[[Path, Files], object]
    varying: frozenset[str] = frozenset()
    weight: int = 1

    def files(self, folder: Path) -> Files:
        """Return name -> bytes of all it wrote; the content of `varying` left out."""
        return {
            name: b"" if name in self.varying else content
            for name, content in files_of(folder).items()
        }


def make_inputs(folder: Path) -> Path:
    """Make what the commands read: a data set, and a bundle."""
    gray_set(folder / "set")
    tiny_bundle(folder / "bundle")
    return folder


def _train(name: str, *more: str, weight: int = 1) -> Command:
    options = (
        "train --modality gray --foundation tiny --mat mat --tune full --loss bce --image-size 64 --steps 6 "
        "--val-every 2 --batch-size 2 --prompts-per-image 2 --lr 1e-4 --seed 1 --device cpu"
    )

    def start(inputs: Path, folder: Path) -> list[str]:
        return [
            *options.split(),
            *more,
            "--data",
            str(inputs / "set"),
            "--out",
            str(folder / "run"),
        ]

    def again(inputs: Path, folder: Path) -> list[str]:
        begun = (folder / "run" / "config.toml").exists()
        return (
            ["train", "--resume", str(folder / "run")]
            if begun
            else start(inputs, folder)
        )

    def check(folder: Path, whole: Files) -> None:
        run = RunFolder(folder / "run")
        if run.state.exists():
            load_state(run.state)
        if run.bundle.exists():
            read_sensors(run.bundle)
        read_report(run)

    return Command(
        name,
        start,
        again,
        check,
        frozenset({"run/config.toml", "run/report.json", "run/report.html"}),
        weight,
    )


def _predict(inputs: Path, folder: Path) -> list[str]:
    images = [str(inputs / "set" / "images" / f"s{index}.png") for index in range(4)]
    options = f"--point 14,20 --device cpu --out {folder / 'out'}"
    return ["predict", str(inputs / "bundle"), *images, *options.split()]


def _follow(inputs: Path, folder: Path) -> list[str]:
    images, masks = inputs / "set" / "images", inputs / "set" / "masks"
    options = f"--mask {masks / 's0.png'} --mask {masks / 's5.png'} --format coco --device cpu --out {folder / 'out'}"
    return ["follow", str(inputs / "bundle"), str(images), *options.split()]


def _simulate(inputs: Path, folder: Path) -> list[str]:
    return f"data simulate --modality gray --count 5 --seed 3 --size 48 40 --out {folder / 'set'}".split()


def _push(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda inputs, folder: [
        "bundle",
        "push",
        str(inputs / "bundle"),
        str(folder / name),
        "--force",
    ]


def _whole_files(folder: Path, whole: Files) -> None:
    """Check that each file that has its name is whole; what is being written has a hidden name."""
    for name, content in files_of(folder).items():
        if not any(part.startswith(".") for part in Path(name).parts):
            assert whole.get(name) == content, f"{name} is half-written"


def _whole_folder(name: str) -> Callable[[Path, Files], None]:
    def check(folder: Path, whole: Files) -> None:
        _whole_files(folder, whole)
        missing = (
            sorted(set(whole) - set(files_of(folder)))
            if (folder / name).exists()
            else []
        )
        assert not missing, f"{name} is there without {missing[0]}"

    return check


def _simulate_again(inputs: Path, folder: Path) -> list[str] | None:
    return None if (folder / "set").exists() else _simulate(inputs, folder)


COMMANDS = [
    _train("train", "--no-pictures", weight=6),
    _train("train with pictures"),
    Command("predict", _predict, _predict, _whole_files),
    Command(
        "follow",
        _follow,
        _follow,
        _whole_files,
        frozenset({"out/.follow/log.jsonl"}),
        2,
    ),
    Command(
        "bundle push",
        _push("pushed.safetensors"),
        _push("pushed.safetensors"),
        _whole_files,
    ),
]
if find_spec("simmat_plugin_scenes"):
    COMMANDS.append(
        Command("data simulate", _simulate, _simulate_again, _whole_folder("set"))
    )

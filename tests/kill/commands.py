"""The commands that are killed, and what holds of their output at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from runs import files_of, gray_set
from simmat_plugin_report.documents import read_report

from simmat.bundle import check_bundle, push_bundle
from simmat.training.run_folder import RunFolder
from simmat.training.state import load_state

Files = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """A command that writes into a folder of its own.

    Attributes:
        name: of the command, for people.
        first: (inputs, folder) -> its arguments.
        again: (inputs, folder) -> its arguments after a kill; None where it had finished already.
        check: (folder, files of a whole run) raises where something is half-written; called after each kill.
        places: files whose content names the folder or a time, and so differs.
    """

    name: str
    first: Callable[[Path, Path], list[str]]
    again: Callable[[Path, Path], list[str] | None]
    check: Callable[[Path, Files], object]
    places: frozenset[str] = frozenset()

    def files(self, folder: Path) -> Files:
        """Return name -> bytes of all it wrote; the content of `places` left out."""
        return {name: b"" if name in self.places else content for name, content in files_of(folder).items()}


def make_inputs(folder: Path) -> Path:
    """Make what the commands read: a data set, and a bundle."""
    from bundles import tiny_bundle

    gray_set(folder / "set")
    push_bundle(tiny_bundle(folder / "tiny"), str(folder / "bundle"), licence="mit")
    return folder


def _train(*more: str) -> Callable[[Path, Path], list[str]]:
    options = "--modality gray --foundation tiny --mat mat --tune full --loss bce --image-size 64 --steps 6"
    more_options = "--val-every 2 --batch-size 2 --prompts-per-image 2 --lr 1e-4 --seed 1 --device cpu"

    def arguments(inputs: Path, folder: Path) -> list[str]:
        paths = ["--data", str(inputs / "set"), "--out", str(folder / "run")]
        return ["train", *options.split(), *more_options.split(), *more, *paths]

    return arguments


def _train_command(name: str, *more: str) -> Command:
    start = _train(*more)

    def again(inputs: Path, folder: Path) -> list[str]:
        begun = (folder / "run" / "config.toml").exists()
        return ["train", "--resume", str(folder / "run")] if begun else start(inputs, folder)

    def check(folder: Path, whole: Files) -> None:
        run = RunFolder(folder / "run")
        if run.state.exists():
            load_state(run.state)
        if run.bundle.exists():
            check_bundle(run.bundle)
        read_report(run)

    places = frozenset({"run/config.toml", "run/report.json", "run/report.html"})
    return Command(name, start, again, check, places)


def _predict(inputs: Path, folder: Path) -> list[str]:
    images = [str(inputs / "set" / "images" / f"s{index}.png") for index in range(4)]
    return [
        "predict",
        str(inputs / "bundle"),
        *images,
        "--point",
        "14,20",
        "--out",
        str(folder / "out"),
        "--device",
        "cpu",
    ]


def _simulate(inputs: Path, folder: Path) -> list[str]:
    return [
        "data",
        "simulate",
        *"--modality gray --count 5 --seed 3 --size 48 40".split(),
        "--out",
        str(folder / "set"),
    ]


def _push(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda inputs, folder: ["bundle", "push", str(inputs / "bundle"), str(folder / name), "--force"]


def _whole_files(folder: Path, whole: Files) -> None:
    """Check that each file that has its name is whole; what is being written has a hidden name."""
    for name, content in files_of(folder).items():
        if not any(part.startswith(".") for part in Path(name).parts):
            assert whole.get(name) == content, f"{name} is half-written"


def _whole_folder(name: str) -> Callable[[Path, Files], None]:
    def check(folder: Path, whole: Files) -> None:
        _whole_files(folder, whole)
        if (folder / name).exists():
            missing = sorted(set(whole) - set(files_of(folder)))
            assert not missing, f"{name} is there without {missing[0]}"

    return check


def _unless_there(name: str, first: Callable[[Path, Path], list[str]]) -> Callable[[Path, Path], list[str] | None]:
    return lambda inputs, folder: None if (folder / name).exists() else first(inputs, folder)


COMMANDS = (
    _train_command("train", "--no-pictures"),
    _train_command("train with pictures"),
    Command("predict", _predict, _predict, _whole_files),
    Command("bundle push", _push("pushed"), _push("pushed"), _whole_folder("pushed")),
    Command("bundle push to a zip", _push("pushed.zip"), _push("pushed.zip"), _whole_files),
    *(
        [Command("data simulate", _simulate, _unless_there("set", _simulate), _whole_folder("set"))]
        if find_spec("simmat_plugin_scenes")
        else []
    ),
)
WEIGHTS = (6, 1, 1, 1, 1, 1)[: len(COMMANDS)]
"""How often each is drawn: what takes long and can be resumed, the most."""

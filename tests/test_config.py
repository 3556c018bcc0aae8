"""Settings of a training run."""

import re
from pathlib import Path
from typing import Any

import pytest

from simmat.config import (
    TrainConfig,
    dump_toml,
    load_config,
)
from simmat.errors import ConfigError
from simmat.sensors.channel_selection import parse_channels

NEEDED = {"modality": "thermal", "data": Path("/data"), "out": Path("/run")}


def toml(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path | None, overrides: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path,
) -> None:
    """A user tries a variant by one option, without editing the file."""
    path = toml(tmp_path, "batch_size = 2\nseed = 7\n")
    config = load_config(path, {**NEEDED, "seed": 9, "lr": None, "batch_size": None})
    assert (config.batch_size, config.seed, config.prompts_per_image, config.lr) == (
        2,
        9,
        4,
        None,
    )


def test_epochs_on_the_command_line_replace_steps_in_the_file(tmp_path: Path) -> None:
    """The command line wins, also over the field it excludes."""
    path = toml(tmp_path, "steps = 100\n")
    config = load_config(path, {**NEEDED, "epochs": 3})
    assert (config.steps, config.epochs) == (None, 3)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"steps": 3, "epochs": 3}, "steps = 3.*epochs = 3"),
        (
            {"checkpoint": Path("/w.pth"), "from_scratch": True},
            "checkpoint.*from_scratch",
        ),
        (
            {"batch_size": 3, "grad_accumulation": 2},
            "batch_size = 3.*grad_accumulation = 2",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused(
    extra: dict[str, Any], said: str
) -> None:
    """Choosing one of the two silently would surprise every second user."""
    assert re.search(said, message(None, {**NEEDED, **extra}))
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**{**NEEDED, **extra})


@pytest.mark.parametrize("extra", [{"augment": False}, {"protocol": "simmat-compat"}])
@pytest.mark.parametrize(
    ("name", "value", "said"), [("rotate", True, "true"), ("paste", 0.5, "0.5")]
)
def test_a_part_of_the_augmentation_without_it_is_refused(
    extra: dict[str, Any], name: str, value: object, said: str
) -> None:
    """Ignored in silence, it would be believed to have been there."""
    assert re.search(
        f"{name} = {said} .*augment", message(None, {**NEEDED, **extra, name: value})
    )
    assert (
        getattr(
            load_config(None, {**NEEDED, **extra, "augment": True, name: value}), name
        )
        == value
    )


def test_all_problems_of_a_file_come_in_one_message(tmp_path: Path) -> None:
    """Mending one line a run is a waste of a user's morning."""
    wrong = 'batchsize = 3\nlr = -1\ndevice = "gpu"\nregions = "things"\nsteps = 1\nepochs = 1\n'
    path = toml(tmp_path, f'modality = "rgb"\n{wrong}')
    said = message(path, {"workers": -1})
    for part in (
        "data is missing; give --data",
        "out is missing; give --out",
        f"({path}, command line)",
        "no key 'batchsize'; did you mean 'batch_size'?",
        "lr must be greater than 0, got -1",
        "must be auto, cpu, cuda, cuda:N or mps, got 'gpu'",
        "'components' or 'panoptic', got 'things'",
        "workers must be greater than or equal to 0, got -1",
    ):
        assert part in said


def test_relative_paths_of_a_file_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config file lies beside its data and is run from anywhere; what is typed is relative to where one is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    path = toml(
        tmp_path / "sub", 'modality = "rgb"\ndata = "set"\ncheckpoint = "/w.pth"\n'
    )
    config = load_config(path, {"out": Path("run")})
    assert config.data == tmp_path / "sub" / "set"
    assert config.checkpoint == Path("/w.pth")
    assert config.out == tmp_path / "run"


def test_a_home_folder_is_found_in_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """~ is the shell's, and no shell reads the file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = toml(tmp_path, 'data = "~/set"\nnodata = 0\n')
    assert (
        load_config(path, {"modality": "rgb", "out": Path("run")}).data
        == tmp_path / "set"
    )
    assert "--data must" in message(None, {**NEEDED, "data": Path("~no-one/x")})


def test_a_written_config_reads_back_equal(tmp_path: Path) -> None:
    """A resumed run and a repeated run stand on the file in the run's folder."""
    config = load_config(
        None,
        {
            **NEEDED,
            "data": Path('odd "name" µ\\n'),
            "epochs": 2,
            "channels": "0-2,nir",
            "nodata": -9999.0,
            "lr": 3e-5,
            "augment": False,
            "mat_options": {"width": 8, "names": ["a", "b"], "on": True, "scale": 0.5},
        },
    )
    assert load_config(toml(tmp_path, dump_toml(config))) == config


def test_options_of_a_part_are_merged_unless_the_part_is_another(
    tmp_path: Path,
) -> None:
    """`--mat-option` changes one option; another `--mat` has other options."""
    path = toml(tmp_path, 'mat = "mat"\n[mat_options]\nwidth = 8\ndepth = 2\n')
    merged = load_config(path, {**NEEDED, "mat_options": {"depth": 3}})
    assert merged.mat_options == {"width": 8, "depth": 3}
    assert load_config(path, {**NEEDED, "mat": "linear"}).mat_options == {}
    unnamed = toml(tmp_path, "[tune_options]\nrank = 16\n")
    assert load_config(unnamed, {**NEEDED, "tune": "lora"}).tune_options == {"rank": 16}


@pytest.mark.parametrize(
    ("text", "picks"),
    [
        ("0-3", (0, 1, 2, 3)),
        ("2,0", (2, 0)),
        ("0-1, 8 ,nir", (0, 1, 8, "nir")),
        ("near-ir", ("near-ir",)),
    ],
)
def test_channels_are_names_indices_and_ranges(
    text: str, picks: tuple[str | int, ...]
) -> None:
    """`--channels 0-6,8` is what a user of twelve bands types."""
    assert parse_channels(text) == picks


@pytest.mark.parametrize("text", ["", "1,,2", "3-1", "1,1", "0-2,1", "0-99999999"])
def test_a_wrong_channel_list_is_refused(text: str) -> None:
    """A range that is empty or huge is a slip of the keyboard."""
    with pytest.raises(
        ValueError, match=r"empty item|backwards|more than once|at most"
    ):
        parse_channels(text)

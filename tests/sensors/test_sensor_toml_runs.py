"""`--modality ./sensor.toml` in every command, and a bundle that needs the file no more."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from runs import config, gray_set, registry

from simmat import training
from simmat.bundle import read_bundle_spec
from simmat.cli import run
from simmat.sensors.options import modality_parts
from simmat.sensors.sensor_toml import read_sensor
from simmat.training.run_folder import load_state

pytestmark = pytest.mark.plugins("hub", "report")

SENSOR = """
format = 1
name = "sonar"
description = "echo strength"

[[source]]
files = "*.png"

[[channel]]
name = "echo"
quantity = "echo_strength"
unit = "count"
normalize = { kind = "db", of = "amplitude", floor = 1 }
"""
QUICK = (
    "--foundation tiny --image-size 64 --steps 2 --batch-size 2 --device cpu".split()
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user stands in their folder, beside their sensor.toml and their data."""
    monkeypatch.chdir(tmp_path)
    Path("sensor.toml").write_text(SENSOR, encoding="utf-8")
    gray_set(tmp_path / "data")


def test_a_described_sensor_is_checked_trained_scored_and_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole way without a line of code; after training, the bundle alone is enough, from anywhere."""
    assert run(["data", "check", "data", "--modality", "./sensor.toml"]) == 0
    assert "echo [dB]" in capsys.readouterr().out
    assert (
        run(
            [
                "train",
                "--modality",
                "./sensor.toml",
                "--data",
                "data",
                "--out",
                "run",
                *QUICK,
            ]
        )
        == 0
    )
    Path("sensor.toml").unlink()
    Path("elsewhere").mkdir()
    shutil.copy("run/bundle.safetensors", "elsewhere/sonar.safetensors")
    os.chdir("elsewhere")
    capsys.readouterr()
    assert run(["bundle", "show", "sonar.safetensors"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "sensor in the bundle sonar" in shown
    assert 'kind = "db" of = "amplitude" floor = 1.0' in shown
    assert (
        run(
            [
                "eval",
                "sonar.safetensors",
                "--data",
                "../data",
                "--split",
                "test",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["tuned"]["objects"] == 4
    assert (
        run(
            [
                "predict",
                "sonar.safetensors",
                "../data/images/s0.png",
                "--point",
                "14,20",
                "--out",
                "out",
            ]
        )
        == 0
    )
    assert Image.open("out/s0_mask.png").size == (56, 40)


class Stopping(training.Callback):
    """Stops a run after its third step, as a second Ctrl-C would; its state is that of step 2."""

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt


def test_a_run_is_resumed_from_another_folder_and_without_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path means the file it meant when training began; what the run wrote down is enough to go on."""
    with pytest.raises(KeyboardInterrupt):
        training.train(
            config(Path("data"), Path("run"), modality="./sensor.toml", steps=4),
            registry(),
            Stopping(),
        )
    assert f'modality = "{tmp_path}/sensor.toml"' in Path("run/config.toml").read_text(
        encoding="utf-8"
    )
    Path("sensor.toml").unlink()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    training.resume(tmp_path / "run", registry())
    assert read_bundle_spec(tmp_path / "run/bundle.safetensors").modality == "sonar"
    assert load_state(tmp_path / "run/last.safetensors").notes.step == 4


DETAILED = """
format = 1
name = "probe"

[[source]]
files = "*.tif"
planes = 4

[[channel]]
name = "heat"
plane = 2
quantity = "temperature"
unit = "K"
scale = 0.04
offset = -273.15
nodata = [0, 65535]
normalize = { kind = "range", low = 250, high = 330 }

[[channel]]
name = "echo"
band = 1
quantity = "echo_strength"
unit = "count"
normalize = { kind = "db", of = "amplitude", floor = 1 }

[[channel]]
name = "plain"
plane = 1
quantity = "counts"
unit = "count"
"""


def test_a_described_sensor_is_shown_as_it_was_understood(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """These lines decide what the network sees; whoever wrote them looks here whether they were understood."""
    Path("probe.toml").write_text(DETAILED, encoding="utf-8")
    assert run(["modalities", "show", "rgb+./probe.toml"]) == 0
    shown = capsys.readouterr().out.partition("format = 1")
    Path("again.toml").write_text("".join(shown[1:]), encoding="utf-8")
    assert read_sensor("again.toml").definition == read_sensor("probe.toml").definition
    assert run(["modalities", "show", "./probe.toml", "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)["sensor_definitions"]
    assert (described["channel"][0]["plane"], described["channel"][0]["scale"]) == (
        2,
        0.04,
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rgb + thermal", ("rgb", "thermal")),
        ("rgb+./s.toml", ("rgb", "./s.toml")),
        ("/data/c++/s.toml+rgb", ("/data/c++/s.toml", "rgb")),
        ("rgb+", ("rgb", "")),
        ("s.toml+d/t.TOML", ("s.toml", "d/t.TOML")),
    ],
)
def test_names_and_paths_are_distinguished(text: str, parts: tuple[str, ...]) -> None:
    """A "+" joins sensors and may stand in a folder's name."""
    assert modality_parts(text) == parts

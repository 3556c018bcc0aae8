"""The descriptions that docs/sensor-toml.md shows or names, on the real data; skipped where the data is not there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from data_sets import linked
from installed import SHARED_DATA, needs_shared_data

from simmat.cli import run
from simmat.sensors.sensor_toml import read_sensor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sensor-toml.md").read_text(encoding="utf-8")
DESCRIBED = dict(
    re.findall(r"^```toml\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
)
DESCRIBED["water.toml"] = (ROOT / "examples" / "water.toml").read_text("utf-8")
SETS = {
    "sonar.toml": ("sonar-objects", 100),
    "water.toml": ("multispectral-water", 100),
}


def test_every_description_of_the_page_is_one(tmp_path: Path) -> None:
    """The page is copied from; a slip in it is a slip in many."""
    assert DESCRIBED.keys() == SETS.keys()
    for name, text in DESCRIBED.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_sensor(tmp_path / name).channels


def test_the_commented_example_is_one() -> None:
    """It shows every key, so it must be right in every key."""
    adapter = read_sensor(ROOT / "examples" / "sensor.toml")
    assert [channel.name for channel in adapter.channels] == [
        "red",
        "nir",
        "swir",
        "height",
    ]
    assert [rule.index for rule in adapter.definition.channel] == [3, 4, 5, None]


@pytest.mark.slow
@needs_shared_data
@pytest.mark.parametrize("name", SETS)
def test_a_described_sensor_trains_scores_and_predicts_on_real_files(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Real files have what made-up ones lack; after training, the description is gone."""
    folder, smallest = SETS[name]
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(DESCRIBED[name], encoding="utf-8")
    data = str(linked(SHARED_DATA / folder, tmp_path / "data"))
    regions = ["--regions", "components", "--min-region", str(smallest)]
    assert run(["data", "check", data, "--modality", name, *regions]) == 0
    quick = "--foundation tiny --steps 2 --batch-size 2 --image-size 64 --device cpu --out run".split()
    assert run(["train", "--modality", name, "--data", data, *regions, *quick]) == 0
    Path(name).unlink()
    shutil.move("run/bundle.safetensors", "real.safetensors")
    capsys.readouterr()
    assert (
        run(["eval", "real.safetensors", "--data", data, "--split", "val", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["tuned"]["objects"] >= 4
    image = sorted((SHARED_DATA / folder / "images").iterdir())[0]
    assert (
        run(
            [
                "predict",
                "real.safetensors",
                str(image),
                "--point",
                "60,60",
                "--out",
                "out",
            ]
        )
        == 0
    )
    assert Path("out", f"{image.stem}_mask.png").is_file()

"""The descriptions that docs/sensor-toml.md shows or names, on the real data; skipped where the data is not there."""

from __future__ import annotations

import re
from pathlib import Path

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

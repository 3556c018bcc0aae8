"""Cards, configs, channels, sensors and bundles through their files: what is read is what was written."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from document_values import (
    EXAMPLES,
    FINITE,
    JSON,
    NAMED,
    NAMES,
    OPTIONS,
    POSITIVE,
    TEXT,
    cards,
    channels,
    ranges,
    specs,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from simmat.bundle import read_bundle_spec, write_bundle
from simmat.config import dump_toml, load_config
from simmat.data.card import DataCard, load_card, write_card
from simmat.documents import StrictModel, of_dataclass, validate
from simmat.io.files import atomic_write_json
from simmat.io.reading import parse_json, read_json
from simmat.model_spec import ModelSpec
from simmat.sensors.sensor_toml import SensorDefinition, read_sensor
from simmat.types import Channel


class Kept(StrictModel):
    channel: Annotated[Channel, of_dataclass(Channel)]


@given(card=cards())
def test_a_card_is_read_as_it_was_written(tmp_path: Path, card: DataCard) -> None:
    """A note with quotes, or a class called "a = b", must not become another card."""
    write_card(tmp_path, card)
    assert load_card(tmp_path, {}) == card


@given(channel=channels())
def test_a_channel_is_read_as_it_was_written(tmp_path: Path, channel: Channel) -> None:
    """Mean and range decide what the network sees, to the last bit."""
    atomic_write_json(tmp_path / "channel.json", {"channel": asdict(channel)})
    assert validate(Kept, read_json(tmp_path / "channel.json")).channel == channel


@settings(max_examples=EXAMPLES // 3)  # a bundle is written through to the disk
@given(spec=specs())
def test_a_bundle_is_read_as_it_was_written(tmp_path: Path, spec: ModelSpec) -> None:
    """What training decided is all that another machine knows."""
    write_bundle(tmp_path / "bundle.safetensors", spec, {})
    read = read_bundle_spec(tmp_path / "bundle.safetensors")
    assert all(
        getattr(read, name) == getattr(spec, name) for name in ModelSpec.model_fields
    )


_CONFIGS = st.fixed_dictionaries(
    {"modality": NAMES},
    optional={
        "foundation": NAMES,
        "mat": NAMES,
        "tune": NAMES,
        "mat_options": OPTIONS,
        "tune_options": OPTIONS,
        "regions": st.sampled_from(("instances", "classes", "components")),
        "image_size": st.integers(1, 64).map(lambda count: 16 * count),
        "batch_size": st.integers(1, 64),
        "lr": POSITIVE,
        "seed": st.integers(0, 2**63 - 1),
        "rotate": st.booleans(),
        "nodata": FINITE | st.integers(-(2**31), 2**31),
        "channels": st.lists(st.integers(0, 20), min_size=1, max_size=3, unique=True),
        "schedule": st.sampled_from(("cosine", "constant", "halving")),
        "box_fraction": st.floats(0, 1),
    },
)


@given(
    values=_CONFIGS,
    name=st.text(
        st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20
    ),
)
def test_a_config_is_read_as_it_was_written(
    tmp_path: Path, values: dict[str, Any], name: str
) -> None:
    """A resumed run reads its settings from the file that it wrote."""
    config = load_config(
        None, {**values, "data": tmp_path / name, "out": tmp_path / "run"}
    )
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    assert load_config(path) == config


_RULES = st.one_of(
    st.sampled_from(
        (
            {"kind": "z-score"},
            {"kind": "log"},
            {"kind": "percentile", "low": 1.0, "high": 99.0},
        )
    ),
    ranges().map(lambda pair: {"kind": "range", "low": pair[0], "high": pair[1]}),
    st.fixed_dictionaries(
        {"kind": st.just("z-score"), "mean": FINITE, "std": POSITIVE}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("db"),
            "of": st.sampled_from(("power", "amplitude")),
            "floor": POSITIVE,
        }
    ),
)
_CHANNEL = st.fixed_dictionaries(
    {"quantity": st.just("reflectance"), "unit": NAMED, "plane": st.integers(0, 9)},
    optional={
        "wavelength_um": POSITIVE,
        "scale": FINITE.filter(bool),
        "offset": FINITE,
        "nodata": st.lists(FINITE, max_size=2),
        "valid_range": ranges().map(list),
        "normalize": _RULES,
    },
)


@given(name=NAMES, description=TEXT, rules=st.lists(_CHANNEL, min_size=1, max_size=3))
def test_a_sensor_is_read_as_it_was_written(
    tmp_path: Path, name: str, description: str, rules: list[dict[str, Any]]
) -> None:
    """A bundle keeps the sensor whole, and it must be the one that was trained on."""
    import tomli_w

    named = [{"name": f"c{index}", **rule} for index, rule in enumerate(rules)]
    values = {
        "format": 1,
        "name": name,
        "description": description,
        "source": [{"files": ["*.tif"]}],
        "channel": named,
    }
    path = tmp_path / "sensor.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    definition = read_sensor(path).definition
    assert [channel.name for channel in definition.channel] == [
        rule["name"] for rule in named
    ]
    for channel, rule in zip(definition.channel, rules, strict=True):
        assert (channel.unit, channel.plane) == (rule["unit"], rule["plane"])
        assert channel.scale == rule.get("scale", 1.0)
        assert list(channel.valid_range or []) == rule.get("valid_range", [])
    assert (
        SensorDefinition.model_validate(
            parse_json(json.dumps(definition.model_dump(mode="json")))
        )
        == definition
    )


@given(value=JSON)
def test_json_within_the_limits_is_read_as_python_reads_it(value: Any) -> None:
    """The limits of depth and size must not change what ordinary files say."""
    text = json.dumps(value)
    assert parse_json(text) == json.loads(text)
    assert parse_json(text.encode()) == json.loads(text)


@given(value=st.integers() | st.floats(), depth=st.integers(0, 100))
def test_json_is_read_as_python_reads_it_or_refused(value: float, depth: int) -> None:
    """Nothing in between: no number is rounded, no level is dropped."""
    text = "[" * depth + json.dumps(value) + "]" * depth
    try:
        found = parse_json(text)
    except ValueError:
        return
    assert repr(found) == repr(json.loads(text))

"""The settings of a training on several sensors: a file with a `[[data]]` table for each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from simmat.config import (
    CARD_FIELDS,
    TrainConfig,
    dump_toml,
    merged,
    option_name,
    read_settings,
    sensor_name,
    with_paths,
)
from simmat.documents import listed
from simmat.errors import ConfigError, did_you_mean

OF_SENSOR = (
    "modality", "modality_options", "data", "mat", "mat_options", "channels", *CARD_FIELDS, "train_images",
    "train_share", "val_images", "augment", "rotate", "paste", "clicks", "prompts_per_image", "aspect", "heads",
)  # fmt: skip
"""Settings that each of several sensors may have for itself; the others are those of all."""


def load_sensors(path: Path | str | None, overrides: Mapping[str, Any] | None = None) -> dict[str, TrainConfig]:
    """Return name -> settings of every sensor that a file has in `[[data]]` tables; none where it has no such tables.

    A table has a `name`, by default that of the sensor, which is also that of its folder in `out`, and settings of
    `OF_SENSOR`. Everything else is for all sensors.

    Raises:
        ConfigError: as `load_config`, or a sensor is given twice.
    """
    in_file = read_settings(Path(path)) if path is not None else {}
    given = dict(overrides or {})
    tables = in_file.get("data")
    shared = {key: value for key, value in in_file.items() if key != "data"}
    if not isinstance(tables, list):
        return {}
    problems = []
    found = dict[str, TrainConfig]()
    for key in ("data", "modality"):
        if given.pop(key, None) is not None:
            problems.append(f"{option_name(key)} is for one sensor, and {path} has [[data]]; leave it out")
    for key in ("init", "new_sensor", "epochs"):
        if given.get(key) or shared.get(key):
            problems.append(f"{key} is for one sensor; leave it out" + (", give steps" if key == "epochs" else ""))
    if (given.get("track") or shared.get("track")) in ("wandb", "mlflow"):
        problems.append("track: wandb and mlflow log one run in a process, and each sensor has one; use tensorboard")
    out = given.pop("out", None) or shared.pop("out", None)
    if not isinstance(out, str | Path):
        problems.append("out is missing; give --out" if out is None else f"out must be a path, got {out!r}")
    places = dict[tuple[Any, ...], str]()
    for number, table in enumerate(tables, start=1):
        if not isinstance(table, dict):
            problems.append(f"data {number} must be a table with the settings of a sensor, got {table!r}")
            continue
        table = TrainConfig.with_current_keys(table)
        name = table.pop("name", table.get("modality", shared.get("modality")))
        try:
            name = sensor_name(name if isinstance(name, str) else "")
        except ValueError as error:
            problems.append(f"data {number}: name (else modality) {error}")
            continue
        if name in found:
            problems.append(f"data {number}: sensor {name!r} is given twice; give each a `name` of its own")
        elif unknown := sorted(set(table) - set(OF_SENSOR)):
            problems += [
                f"data {number} ({name!r}): {key} is not a setting of one sensor; set it for all"
                if key in TrainConfig.model_fields
                else f"data {number} ({name!r}): no key {key!r}{did_you_mean(key, OF_SENSOR)}"
                for key in unknown
            ]
        elif not problems:
            values = {"steps": 500, **shared, **with_paths(table, Path(path or "").absolute().parent)}
            found[name] = merged(values, given | {"out": Path(out) / name}, f"settings of {name!r} ({path})")
            own = found[name]
            place = own.data, own.modality, str(own.modality_options), own.channels
            other = places.setdefault(place, name)
            if other != name:
                problems.append(f"{name!r} and {other!r} are one sensor given twice, with the data of {own.data}")
    if problems:
        raise ConfigError(listed(f"settings ({path})", problems))
    return found


def dump_sensors(sensors: Mapping[str, TrainConfig]) -> str:
    """Return the configs of several sensors as TOML from which `load_sensors` reads equal ones."""
    dumped = [tomllib.loads(dump_toml(config)) for config in sensors.values()]
    tables = []
    for values in dumped:
        tables.append({key: value for key, value in values.items() if key in OF_SENSOR})
    shared = {key: value for key, value in dumped[0].items() if key not in (*OF_SENSOR, "out")}
    out = str(next(iter(sensors.values())).out.parent)
    named = [{"name": name, **table} for name, table in zip(sensors, tables, strict=True)]
    return tomli_w.dumps({"out": out, **shared, "data": named})

"""The settings of a training, of one sensor or of several, from a TOML file, the command line, or Python."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from simmat.documents import StrictModel, listed, option_name, problems_of, read_toml
from simmat.errors import ConfigError, did_you_mean, shortened
from simmat.io.paths import with_home
from simmat.sensors.channel_selection import parse_channels
from simmat.sensors.options import CropSide, NodataField, with_absolute_files
from simmat.types import (
    Aspect,
    RegionRule,
    ZeroMeans,
)

Heads = Literal["auto", "prompt", "prompt,dense"]
DEFAULT_HEADS: Heads = "auto"

MAX_WORKERS = 256
MAX_BATCH = 2**16
MAX_IMAGE_SIZE = 2**14
MAX_STEPS = 10**9
"""Limits of loading processes, of images or prompts in a step, of pixels in a side of the input, of steps."""

MIN_TO_CHOOSE = 6
"""Fewest images of a validation that chooses the step of the bundle; about 40 labels have so many.

The last weights scored more than those that so few chose: by 0.038 ± 0.029 with 8 labels and by 0.008 ± 0.005 with 15
(benchmarks/records/settings.md: mean of one-click mIoU, AP50 and class mIoU on other images, six sets, two draws).
"""

MUTABLE_ON_RESUME = frozenset(
    {"device", "gradient_checkpointing", "pictures", "track", "workers"}
)
"""Settings that do not change the result of a run, except for rounding."""

PATH_SETTINGS = frozenset(
    {"checkpoint", "data", "foundation", "init", "modality", "out"}
)
"""Settings that name files: the content decides the result, not the path, which may change before a resume."""

BUNDLE_ELSEWHERE = re.compile(r"gallery:|\w{2,}:[/\\]")
"""How the place of a bundle begins that is no path: gallery:NAME, hf://ORG/NAME (also as a path). C:/ is a drive."""

CARD_FIELDS = (
    "regions",
    "min_region",
    "nodata",
    "ignore",
    "zero_means",
    "class_attribute",
    "crop",
)
"""Settings that replace those of the data card."""

OF_SENSOR = (
    "modality", "modality_options", "data", "mat", "mat_options", "channels", *CARD_FIELDS, "train_images",
    "train_share", "val_images", "augment", "rotate", "paste", "clicks", "prompts_per_image", "aspect", "heads",
)  # fmt: skip
"""Settings that each of several sensors may have for itself; the others are those of all."""

_TABLES = {"mat_options": "mat", "tune_options": "tune", "modality_options": "modality"}
_PARTS_OF_AUGMENT = ("rotate", "paste")
_EXCLUDE_EACH_OTHER = (
    ("steps", "epochs"),
    ("checkpoint", "from_scratch"),
    ("init", "from_scratch"),
    ("train_images", "train_share"),
)

COMPAT_DEFAULTS: Mapping[str, Any] = {
    "mat": "mat",
    "tune": "lora",
    "epochs": 51,
    "heads": "prompt",
    "batch_size": 4,
    "prompts_per_image": 1,
    "clicks": "random",
    "box_fraction": 0.0,
    "correction_clicks": 0,
    "augment": False,
    "aspect": "stretch",
    "loss": "bce",
    "weight_decay": 0.0,
    "schedule": "halving",
    "warmup_steps": 0,
    "grad_clip": 0.0,
}
"""Defaults of protocol simmat-compat: those of the paper's released code (arXiv 2409.08083)."""


def _channels(value: Any) -> Any:
    """Accept "0-6,8", a list of names and indices, or None."""
    if isinstance(value, list | tuple):
        if not value or not all(
            isinstance(item, str | int) and not isinstance(item, bool) for item in value
        ):
            raise ValueError("must be a list of channel names and indices")
        value = ",".join(str(item) for item in value)
    if isinstance(value, str):
        return parse_channels(value)
    return value


def _absolute(value: Any) -> Any:
    """Return a path as an absolute one; anything else as it is, for pydantic to refuse."""
    if not isinstance(value, str | Path):
        return value
    if value == "":
        raise ValueError("must name a file or folder, . for the current one")
    if "\0" in str(value) or any(
        "\ud800" <= letter <= "\udfff" for letter in str(value)
    ):
        raise ValueError("must be a path that can be written as UTF-8 text")
    try:
        return with_home(Path(value)).absolute()
    except ConfigError as error:
        raise ValueError("must begin with a home folder that exists") from error


def _bundle(value: Any) -> Any:
    """Return the path of a bundle as `_absolute` does, and the place of one elsewhere as it is."""
    if BUNDLE_ELSEWHERE.match(str(value)):
        return Path(value)
    return _absolute(value)


def _steps(value: Any) -> Any:
    """Check a number of steps, "auto" or None."""
    if value is None or value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be auto or a whole number, got {value!r}")
    if not 1 <= value <= MAX_STEPS:
        raise ValueError(f"must be auto or from 1 to {MAX_STEPS}, got {value}")
    return value


def _fold(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9]{1,3}/[0-9]{1,3}", value):
        raise ValueError("must be a part and the number of parts, such as 2/5")
    if value is not None:
        number, count = fold_of(value)
        if count < 2 or not 1 <= number <= count:
            raise ValueError(
                "must be a part from 1 to the number of parts, which is at least 2, such as 2/5"
            )
    return value


def fold_of(value: str) -> tuple[int, int]:
    """Return the part, from 1, and the number of parts of a `fold` such as "2/5"."""
    number, _, count = value.partition("/")
    return int(number), int(count)


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,4})?", value):
        raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
    return value


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
Channels = Annotated[
    tuple[str | int, ...], Field(strict=False), BeforeValidator(_channels)
]
OptionScalar = bool | int | float | str
OptionValue = OptionScalar | list[OptionScalar]
Options = dict[str, OptionValue]
SensorOptions = dict[str, OptionValue | dict[str, OptionValue]]
Name = Annotated[str, Field(min_length=1)]
Sensor = Annotated[Name, AfterValidator(with_absolute_files)]


def sensor_name(value: str) -> str:
    """Return the name of one of several sensors; ValueError if it cannot stand behind the path of their bundle."""
    if not re.fullmatch(r"\w[\w+-]{0,99}", value) or value == "bundle":
        raise ValueError(
            "must be at most 100 letters and digits, with _, + and - between, and not 'bundle', got "
            f"{shortened(repr(value))}"
        )
    return value


SensorName = Annotated[str, AfterValidator(sensor_name)]


class TrainConfig(StrictModel):
    """All settings of a training run; a config file has the same fields.

    Paths become absolute. At most one of `steps` and `epochs` is set.

    Raises:
        ConfigError: fields are unknown, missing, out of range or exclude each other; all in one message.
    """

    modality: Sensor = Field(
        description="Sensor, such as thermal or rgb+thermal, or the path of a sensor.toml."
    )
    modality_options: SensorOptions = Field(
        {},
        description="Option of the sensor, see `simmat modalities show`; with several sensors SENSOR.OPTION=VALUE.",
    )
    data: AbsolutePath = Field(description="Folder of the data set.")
    out: AbsolutePath = Field(description="Folder of the run; made if it is missing.")
    foundation: str = Field(
        "",
        description="Foundation model, see `simmat foundations list`; by default the installed one that is "
        "ready to use.",
    )
    mat: Name | None = Field(
        None,
        description="Transfer layer between the sensor and the foundation model; by default one that suits the model.",
    )
    tune: Name | None = Field(
        None,
        description="How the foundation model is tuned; by default the tuner that suits the model.",
    )
    mat_options: Options = Field({}, description="Options of the transfer layer.")
    tune_options: Options = Field({}, description="Options of the tuner.")

    checkpoint: AbsolutePath | None = Field(
        None, description="Weight file of the foundation model."
    )
    init: Annotated[Path | None, BeforeValidator(_bundle)] = Field(
        None,
        description="Start from the weights of this run or bundle, which has the same sensor and network.",
    )
    new_sensor: Annotated[
        SensorName | None, BeforeValidator(lambda value: value or None)
    ] = Field(
        None,
        description="Add a sensor of this name to the bundle of --init: train only its transfer layer and dense head.",
    )
    from_scratch: bool = Field(
        False, description="Use random foundation weights instead of pretrained ones."
    )

    channels: Channels | None = Field(
        None,
        description="Channels to use, by name, index from 0, or wavelength (665nm); all by default.",
    )
    regions: RegionRule | None = Field(
        None, description="What a region is; by default as in the data card."
    )
    min_region: int | None = Field(
        None, ge=1, description="Smallest region that counts, in pixels."
    )
    nodata: NodataField | None = Field(
        None,
        description="Stored number that means no measurement; with several sources SOURCE=NUMBER,SOURCE=NUMBER.",
    )
    ignore: int | None = Field(
        None, description="Mask value without ground truth, left out of loss and score."
    )
    zero_means: ZeroMeans | None = Field(None, description="What mask value 0 means.")
    class_attribute: Name | None = Field(
        None,
        description="Attribute that names the class of a polygon, if masks are polygons.",
    )
    crop: CropSide | None = Field(
        None,
        description="Train on windows with sides of this many pixels; 0 trains on whole images.  "
        "[default: by the sizes of objects and images]",
    )
    train_images: int | None = Field(
        None, ge=1, description="Train on this many images, drawn by the seed."
    )
    train_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Train on this share of the images, drawn by the seed; a larger share contains a smaller one.",
    )
    fold: Annotated[str | None, AfterValidator(_fold)] = Field(
        None,
        description="Divide the images of train and val anew into parts, validate on one and train on the others, such "
        "as 2/5; --folds trains on all of them in turn.",
    )

    protocol: Literal["one-click", "simmat-compat"] = Field(
        "one-click",
        description="Protocol of validation; simmat-compat also trains as the paper's released code does.",
    )
    steps: Annotated[int | Literal["auto"] | None, BeforeValidator(_steps)] = Field(
        None,
        description="Optimiser steps; auto, the default, trains until validation no longer rises, or where it cannot "
        "tell, 400 steps plus two for each image, at most 1000.",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Passes over the training split, instead of steps.",
    )
    image_size: int | None = Field(
        None,
        ge=1,
        le=MAX_IMAGE_SIZE,
        description="Side of the square input in pixels; by default the model's own.",
    )
    aspect: Aspect = Field(
        "pad",
        description="Pad to a square, or stretch into one.",
    )
    batch_size: int = Field(
        4, ge=1, le=MAX_BATCH, description="Images per step, over all processes."
    )
    prompts_per_image: int = Field(
        4, ge=1, le=MAX_BATCH, description="Prompted regions per image."
    )
    clicks: Literal["mixed", "random"] = Field(
        "mixed",
        description="First clicks: mixed puts half at the region's centre and half anywhere on it, random all "
        "anywhere on it.",
    )
    box_fraction: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the steps with box prompts instead of clicks.",
    )
    correction_clicks: int = Field(
        1,
        ge=0,
        le=4,
        description="Clicks on errors after the first masks of a step.",
    )
    augment: bool = Field(
        True,
        description="Random flips, scales, gains, offsets and noise of training images.",
    )
    rotate: bool = Field(
        False,
        description="Also random quarter turns and vertical flips, for images without an up direction (from above).",
    )
    paste: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the training images into which copies of objects are pasted.",
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=MAX_WORKERS,
        description="Processes that load data; 0 loads in the main process; by default chosen by the number of cores.",
    )

    heads: Heads = Field(
        DEFAULT_HEADS,
        description="Heads to train: for prompts only, or also a dense head, which finds objects without "
        "prompts; auto trains it if all objects of the data set are marked.",
    )
    loss: Name = Field(
        "focal",
        description="Loss: focal or bce (each with dice), or the loss of a plugin; custom is a loss passed in Python.",
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate; by default that of the model or tuner.",
    )
    backbone_lr_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Learning rate of the backbone, relative to that of transfer layer and decoder.",
    )
    weight_decay: float = Field(
        0.01, ge=0, description="Weight decay of AdamW, for weights that are matrices."
    )
    schedule: Literal["cosine", "constant", "halving"] = Field(
        "cosine",
        description="Learning rate after warm-up, or with --steps auto at the end; halving halves it every 10 epochs.",
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="Linear warm-up; by default 5 % of steps, at most 100, or with --steps auto 20.",
    )
    grad_clip: float = Field(
        1.0, ge=0, description="Largest gradient norm; 0 does not clip."
    )
    grad_accumulation: int = Field(
        1, ge=1, description="Parts that a batch is split into, to save memory."
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Recompute the backbone in the backward pass, to save memory.",
    )
    val_every: int | None = Field(
        None,
        ge=1,
        description="Steps between validations; by default a tenth of the run, with --steps auto 25, or more if "
        "validation is slow.",
    )
    val_images: int | None = Field(
        None,
        ge=1,
        description="Validate on this many images, drawn by the seed; by default all, or fewer if validation is slow.",
    )
    keep: Literal["best", "last"] | None = Field(
        None,
        description="Step that becomes the bundle: the best by validation, or the last; by default the last if "
        f"validation has fewer than {MIN_TO_CHOOSE} images.",
    )
    pictures: bool = Field(
        True,
        description="Write report.html, the page of the run, if a plugin can write it.",
    )

    track: Literal["tensorboard", "wandb", "mlflow"] | None = Field(
        None,
        description="Also log to this tracker; needs pip install 'simmat[TRACKER]'.",
    )

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Number format of the forward pass; auto measures whether bf16 is faster than fp32 here.",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "auto", description="Device: auto, cpu, cuda, cuda:N or mps."
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of all random choices of the run."
    )

    def card_overrides(self) -> dict[str, Any]:
        """Return the fields that replace those of the data card; None if the card decides."""
        return {name: getattr(self, name) for name in CARD_FIELDS}

    def problems(self) -> Iterator[str]:
        """Yield which fields contradict each other."""
        for first, second in _EXCLUDE_EACH_OTHER:
            if getattr(self, first) and getattr(self, second):
                yield (
                    f"{first} = {getattr(self, first)} and {second} = {getattr(self, second)} exclude each other; "
                    "give one"
                )
        if self.new_sensor and self.init is None:
            yield "new_sensor adds a sensor to a bundle; give --init"
        if self.batch_size % self.grad_accumulation:
            yield f"batch_size = {self.batch_size} must be a multiple of grad_accumulation = {self.grad_accumulation}"
        for name in _PARTS_OF_AUGMENT if not self.augment else ():
            value = getattr(self, name)
            if value:
                yield (
                    f"{name} = {str(value).lower()} is part of augment, which is false; give --augment, or "
                    f"leave {name} out"
                )

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems_at_once(
        cls,
        values: Any,
        handler: ModelWrapValidatorHandler[TrainConfig],
        info: ValidationInfo,
    ) -> TrainConfig:
        values = _filled(values) if isinstance(values, Mapping) else values
        try:
            config = handler(values)
            problems = list(config.problems())
        except ValidationError as error:
            pattern = rf"^({'|'.join(cls.model_fields)})\b( is missing$)?"
            file = info.context
            as_option = partial(_as_option, in_file=bool(file))
            problems = []
            for problem in problems_of(error, cls, values):
                problems.append(re.sub(pattern, as_option, problem))
        if problems:
            raise ConfigError(listed(info.context or "settings", problems))
        return config


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults that depend on other fields."""
    filled = dict(values)
    if filled.get("protocol") == "simmat-compat":
        length = {"epochs"} if filled.get("steps") is not None else set()
        for key, value in COMPAT_DEFAULTS.items():
            if filled.get(key) is None and key not in length:
                filled[key] = value
    if filled.get("from_scratch") is True:
        filled.setdefault("tune", "full")
    return filled


def default_steps(images: int) -> int:
    """Return the steps of a training on so many images whose validation cannot tell when it ends."""
    return min(400 + 2 * images, 1000)


def load_config(
    path: Path | str | None, overrides: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Merge a run's settings: the command line overrides the file, the file the defaults.

    Args:
        path: a TOML file with the fields of `TrainConfig`, or None. Paths in it are relative to its folder.
        overrides: fields given on the command line; None means not given.

    Raises:
        ConfigError: the file cannot be read, or fields are unknown, missing or out of range; all in one message.
    """
    in_file = read_settings(path)
    if isinstance(in_file.get("data"), list):
        raise ConfigError(
            f"{path} has a [[data]] table for each of several sensors, which only `simmat train` takes; give the file "
            "or run of one sensor"
        )
    return _of_one(in_file, overrides, path)


def load_configs(
    path: Path | str | None, overrides: Mapping[str, Any] | None = None
) -> dict[str, TrainConfig]:
    """Return name -> settings of every sensor that a file has in `[[data]]` tables; without them, "" -> its settings.

    A table has a `name`, by default that of the sensor, which is also that of its folder in `out`, and settings of
    `OF_SENSOR`. Everything else is for all sensors.

    Raises:
        ConfigError: as `load_config`, or a sensor is given twice.
    """
    in_file = read_settings(path)
    tables = in_file.pop("data", None)
    if not isinstance(tables, list):
        whole = in_file if tables is None else {**in_file, "data": tables}
        return {"": _of_one(whole, overrides, path)}
    given = dict(overrides or {})
    problems = _problems_of_several(given, in_file, path)
    given.pop("data", None)
    given.pop("modality", None)
    out = given.pop("out", None) or in_file.pop("out", None)
    if out is None:
        problems.append("out is missing; give --out")
    elif not isinstance(out, str | Path):
        problems.append(f"out must be a path, got {out!r}")
    found: dict[str, TrainConfig] = {}
    for number, table in enumerate(tables, start=1):
        if not isinstance(table, dict):
            problems.append(
                f"data {number} must be a table with the settings of a sensor, got {table!r}"
            )
            continue
        table = dict(table)
        name = table.pop("name", table.get("modality", in_file.get("modality")))
        wrong = _problems_of_table(number, name, table, found)
        problems += wrong
        if problems:
            continue
        values = {
            "steps": 500,
            **in_file,
            **with_paths(table, Path(path or "").absolute().parent),
        }
        config = merged(
            values, given | {"out": Path(out) / name}, f"settings of {name!r} ({path})"
        )
        for other, known in found.items():
            if _place(known) == _place(config):
                problems.append(
                    f"{name!r} and {other!r} are the same sensor, with the same data, {config.data}"
                )
                break
        found[name] = config
    if problems:
        raise ConfigError(listed(f"settings ({path})", problems))
    return found


def _of_one(
    in_file: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    path: Path | str | None,
) -> TrainConfig:
    return merged(in_file, overrides, path and f"settings ({path}, command line)")


def _problems_of_several(
    given: Mapping[str, Any], in_file: Mapping[str, Any], path: Path | str | None
) -> list[str]:
    """Return which settings are for a training of one sensor alone."""
    problems = []
    for key in ("data", "modality"):
        if given.get(key) is not None:
            problems.append(
                f"{option_name(key)} is for one sensor, and {path} has [[data]]; leave it out"
            )
    if "auto" in (given.get("steps"), in_file.get("steps")):
        problems.append("steps = auto is for one sensor; give a number")
    for key in ("init", "new_sensor", "epochs"):
        if given.get(key) or in_file.get(key):
            problems.append(
                f"{key} is for one sensor; leave it out"
                + (", give steps" if key == "epochs" else "")
            )
    if (given.get("track") or in_file.get("track")) in ("wandb", "mlflow"):
        problems.append(
            "track: wandb and mlflow log only one run per process, but each sensor has its own run; use tensorboard"
        )
    return problems


def _problems_of_table(
    number: int, name: object, table: Mapping[str, Any], found: Collection[str]
) -> list[str]:
    """Return what is wrong with the name and the keys of the table of a sensor."""
    try:
        name = sensor_name(name if isinstance(name, str) else "")
    except ValueError as error:
        return [f"data {number}: name (else modality) {error}"]
    if name in found:
        return [
            f"data {number}: sensor {name!r} is given twice; give each a `name` of its own"
        ]
    problems = []
    for key in sorted(set(table) - set(OF_SENSOR)):
        if key in TrainConfig.model_fields:
            problems.append(
                f"data {number} ({name!r}): {key} is not a setting of one sensor; set it for all"
            )
        else:
            problems.append(
                f"data {number} ({name!r}): no key {key!r}{did_you_mean(key, OF_SENSOR)}"
            )
    return problems


def _place(config: TrainConfig) -> tuple[object, ...]:
    """Return what says that two sensors are one."""
    return config.data, config.modality, config.modality_options, config.channels


def merged(
    in_file: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    context: str | Path | None,
) -> TrainConfig:
    """Merge settings as `load_config` does; `context` names their source in errors."""
    given = {}
    for key, value in (overrides or {}).items():
        if value is not None:
            given[key] = value
    replaced: set[str] = set()
    for pair in _EXCLUDE_EACH_OTHER:
        if any(given.get(key) for key in pair):
            replaced.update(pair)
    without_augment = (
        given.get("protocol") == "simmat-compat" and "augment" not in in_file
    )
    if given.get("augment", not without_augment) is False:
        replaced |= set(_PARTS_OF_AUGMENT)
    in_file = {key: value for key, value in in_file.items() if key not in replaced}
    for table, part in _TABLES.items():
        if part in given and part in in_file and given[part] != in_file[part]:
            # the file's options are those of the replaced part
            in_file.pop(table, None)
        if isinstance(in_file.get(table), dict) and isinstance(
            given.get(table), Mapping
        ):
            given[table] = {**in_file[table], **given[table]}
    return TrainConfig.model_validate({**in_file, **given}, context=context)


def dump_toml(config: TrainConfig) -> str:
    """Return a config as TOML from which `load_config` reads an equal one."""
    values = config.model_dump(mode="json", exclude_none=True)
    return tomli_w.dumps({key: value for key, value in values.items() if value != {}})


def dump_configs(configs: Mapping[str, TrainConfig]) -> str:
    """Return the configs of several sensors as TOML from which `load_configs` reads equal ones."""
    first = next(iter(configs.values()))
    shared = tomllib.loads(dump_toml(first))
    for key in (*OF_SENSOR, "out"):
        shared.pop(key, None)
    tables = []
    for name, config in configs.items():
        table: dict[str, Any] = {"name": name}
        for key, value in tomllib.loads(dump_toml(config)).items():
            if key in OF_SENSOR:
                table[key] = value
        tables.append(table)
    return tomli_w.dumps({"out": str(first.out.parent), **shared, "data": tables})


def read_settings(path: Path | str | None) -> dict[str, Any]:
    """Return what a settings file has, with absolute paths, nothing without a file; ConfigError if it is unreadable."""
    if path is None:
        return {}
    return with_paths(
        read_toml(Path(path), "config file"), Path(path).absolute().parent
    )


def with_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make paths absolute, which are relative to the folder of their file."""
    for key in ("data", "out", "checkpoint", "init"):
        value = values.get(key)
        if isinstance(value, str) and value and not value.startswith("~"):
            elsewhere = key == "init" and BUNDLE_ELSEWHERE.match(value)
            values[key] = value if elsewhere else str(folder / value)
    modality = values.get("modality")
    if isinstance(modality, str):
        values["modality"] = with_absolute_files(modality, folder)
    return values


def _as_option(found: re.Match[str], *, in_file: bool) -> str:
    """Return how a message begins that names a field: by its option, unless a file may have set it."""
    option = option_name(found[1])
    if found[2]:
        return f"{found[0]}; give {option}"
    if in_file:
        return found[0]
    return option

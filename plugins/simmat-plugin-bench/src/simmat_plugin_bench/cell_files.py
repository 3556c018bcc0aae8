"""The json files of a cell: what must stand in each, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from simmat.errors import DataError
from simmat.files import parse_json, read_bytes
from simmat_plugin_bench.figures import figures_of

FORMAT = 1

_LARGEST = 2.0**53
"""No figure is larger; means and deviations of larger ones would overflow."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=_LARGEST)]
Iou = Annotated[float, Field(ge=0, le=1)]


class CellFile(BaseModel):
    """A json file of a cell; more may stand in it than is asked for."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Order(CellFile):
    """`cell.json`: what is to be done."""

    kind: str
    digest: str
    settings: dict[str, Any]


class DataRead(CellFile):
    """Which data a result is of."""

    path: str
    fingerprint: str


class Validation(CellFile):
    """The best validation of a run."""

    miou_object: Iou


class CurvePoint(Validation):
    """One validation of a run."""

    step: Count


class Result(CellFile):
    """`result.json`: what came out; `val` is None where the run diverged, `test` until the test split was read."""

    digest: str
    data: DataRead
    diverged: str
    val: Validation | None
    curve: list[CurvePoint]
    test: dict[str, Any] | None
    test_ious: dict[str, list[Iou]] = Field(default_factory=dict)
    trainable: Count
    total: Count
    steps: Count
    train_samples: Count
    seconds: Seconds
    device: str
    threads: Count
    peak_memory_bytes: Count
    peak_device_bytes: Count | None

    @field_validator("test")
    @classmethod
    def _no_overflow(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        large = [name for name, number in figures_of(value or {}) if abs(number) > _LARGEST]
        if large:
            raise ValueError(f"figure {large[0]} is larger than any score")
        return value


class Failure(CellFile):
    """`failure.json`: why a cell failed."""

    log: str


class Clock(CellFile):
    """`clock.json`: time spent before an interruption."""

    seconds: Seconds


def read_cell_file(path: Path, kind: type[CellFile]) -> dict[str, Any]:
    """Read a json file of a cell.

    Args:
        path: the file.
        kind: what must stand in it.

    Returns:
        Its values as they stand there, also those that `kind` does not ask for.

    Raises:
        DataError: it is damaged, or of another format.
    """
    content = read_bytes(path, "file of a bench")
    remedy = f"remove {path.parent} and run the bench again"
    try:
        values = parse_json(content)
        if not isinstance(values, dict) or "format" not in values:
            raise ValueError("no table with a format")
        if values["format"] != FORMAT:
            raise DataError(f"{path} was written by another version of simmat; use that version, or another --out")
        kind.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()[:3]]
        raise DataError(f"{path} is damaged ({'; '.join(problems)}); {remedy}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); {remedy}") from error
    return values

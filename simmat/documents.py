"""Documents that cross a file boundary: pydantic models, one parser, one error formatter.

A document is plain values from TOML, json or Python. Every problem names the key, what is allowed and what it got, and
for an unknown key the nearest known one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    TypeVar,
    get_args,
    get_type_hints,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    create_model,
)

from simmat.errors import (
    ConfigError,
    SimMATError,
    all_problems,
    did_you_mean,
    shortened,
)
from simmat.io.reading import read_bytes

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[str | int, ...]

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument")
_WORDING = (
    (r"^(Value|Assertion) error, ", ""),
    (
        r"^Input tag .* using '(.*)' does not match any of the expected tags: (.*)",
        r"must have \1 = one of \2",
    ),
    (r"^Unable to extract tag using discriminator '(.*)'", r"must have the key \1"),
    (r"^\w+ should", "must"),
    (r"^([Ii]nput (is|was) not|Unable to parse input string as) a", "must be a"),
    (r"(,| after validation,) (got|not|unable|exceeded) .*", ""),
    (r"a(n instance of| dictionary| valid dictionary| valid mapping).*", "a table"),
    (r"a valid integer", "a whole number"),
    (r"a valid (tuple|list)", "a list"),
    (r"a valid boolean", "true or false"),
    (r"a valid ", "a "),
)
"""Words of pydantic, and those that users read."""
_MAX_SHOWN = 200
"""Most characters of a value in a message."""
_MAX_TOML_BYTES = 2**24


class StrictModel(BaseModel):
    """A frozen table of known keys: no conversion between strings, numbers and booleans, and only finite numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False
    )

    @classmethod
    def known_keys(cls) -> list[str]:
        """Return every key that this table allows."""
        return list(cls.model_fields)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong across fields."""
        yield from ()


class InvalidDocumentError(ValueError):
    """A document that does not match its model; `problems` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def validate(model: type[Model], values: object) -> Model:
    """Return a document as its model; raise InvalidDocumentError, which holds every problem."""
    try:
        found = model.model_validate(values)
    except ValidationError as error:
        raise InvalidDocumentError(problems_of(error, model, values)) from error
    if isinstance(found, StrictModel) and (across := list(found.problems())):
        raise InvalidDocumentError(across)
    return found


def parse(model: type[Model], values: object, where: str) -> Model:
    """Return a document as its model; raise ConfigError, which names `where` and holds every problem."""
    try:
        return validate(model, values)
    except InvalidDocumentError as invalid:
        raise ConfigError(listed(where, invalid.problems)) from invalid


def listed(where: str, problems: Sequence[object]) -> str:
    """Return one message with all problems of a file, each once."""
    lines = list(dict.fromkeys(map(str, problems)))
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return all_problems(f"{where}: {len(lines)} problems:", lines, limit=40)


def option_name(key: str) -> str:
    """Return the command line option of a field: image_size -> --image-size."""
    return "--" + key.replace("_", "-")


def problems_of(
    error: ValidationError, model: type[BaseModel], values: object
) -> list[str]:
    """Return the problems that pydantic found in a document, a line for each place."""
    found: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        loc = tuple(detail["loc"])
        got = detail["input"]
        if detail["type"] in _UNKNOWN:
            place = _place(loc[:-1], values, absent=False)
            keys = _keys_at(model, loc[:-1])
            known = f"; the keys are: {', '.join(keys) or 'none'}"
            line = f"no key {shortened(str(loc[-1]), _MAX_SHOWN)!r}{did_you_mean(str(loc[-1]), keys, otherwise=known)}"
            found[f"{place}: {line}" if place else line] = []
            continue
        place = _place(loc, values, absent=detail["type"] in _MISSING)
        demand = "is missing"
        if detail["type"] not in _MISSING:
            demand = str(detail["msg"])
            for pattern, word in _WORDING:
                demand = re.sub(pattern, word, demand)
            demand += "" if isinstance(got, Mapping) else f", got {shown(got)}"
        found.setdefault(place, []).append(demand)
    return [
        f"{place} {_joined(demands)}".lstrip() if demands else place
        for place, demands in found.items()
    ]


def _joined(demands: Sequence[str]) -> str:
    """Join what the members of a union ask for: "must be a string or a whole number, got 0.5"."""
    first, got = demands[0].partition(", got ")[::2]
    others = [
        demand.partition(", got ")[0].removeprefix("must be ") for demand in demands[1:]
    ]
    return " or ".join(dict.fromkeys([first, *others])) + (
        f", got {got}" if got else ""
    )


def as_tuples(value: Any) -> Any:
    """Return lists as tuples at every depth: json and TOML have no tuples, and strict models accept no lists."""
    if isinstance(value, list | tuple):
        return tuple(as_tuples(item) for item in value)
    return value


Value = TypeVar("Value")
FromLists = Annotated[Value, BeforeValidator(as_tuples)]
"""A tuple, perhaps of tuples, that is a list in json and TOML: `FromLists[tuple[int, int]]`."""


def of_dataclass(kind: type[Any]) -> BeforeValidator:
    """Return a validator that reads a table as a plain dataclass, as strictly as a `StrictModel`."""
    hints = get_type_hints(kind)
    given = {}
    for f in fields(kind):
        given[f.name] = (hints[f.name], ... if f.default is MISSING else f.default)
    table: type[StrictModel] = create_model(
        kind.__name__, __base__=StrictModel, **given
    )  # type: ignore[call-overload]

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            value = asdict(value)  # validated again, so that 1 becomes 1.0
        if isinstance(value, Mapping):
            value = {key: as_tuples(item) for key, item in value.items()}
        found = table.model_validate(value)
        try:
            return kind(**{name: getattr(found, name) for name in given})
        except SimMATError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(read)


def allowed_values(model: type[BaseModel], key: str) -> str:
    """Return what values a key of a document allows, worded as in its error: "a number", "'K' or 'C'"."""
    try:
        validate(model, {key: object()})
    except InvalidDocumentError as invalid:
        for problem in invalid.problems:
            match = re.match(rf"{key} must be (.*), got <object", problem)
            if match:
                return match[1]
    return "any value"


def shown(value: object) -> str:
    """Return a value as shown in a message; a long one is cut."""
    return shortened(
        repr(list(value) if isinstance(value, tuple) else value), _MAX_SHOWN
    )


def read_toml(path: Path, kind: str, *, hint: str = "") -> dict[str, Any]:
    """Read a TOML file in UTF-8 of at most 16 MiB; a ConfigError names its `kind`, and the `hint` if it is missing."""
    with suppress(OSError):  # `read_bytes` reports what the system refuses
        if not (path.exists() or path.is_symlink()):
            raise ConfigError(f"no {kind} {path}" + (f"; {hint}" if hint else ""))
    content = read_bytes(path, kind, limit=_MAX_TOML_BYTES, error=ConfigError)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8"
        ) from error
    # a number with thousands of digits raises a plain ValueError
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _place(loc: Keys, values: object, *, absent: bool) -> str:
    """Return the path to a problem in words: "channel 2 ('nir'): valid_range 1".

    Names that pydantic inserts, such as those of a union's members, are not in the document and left out; `absent` says
    that the last key need not be.
    """
    text = ""
    here = values
    for number, key in enumerate(loc):
        there = isinstance(here, Mapping) and key in here
        there |= (
            isinstance(here, list | tuple) and isinstance(key, int) and key < len(here)
        )
        if not there and not (absent and number == len(loc) - 1):
            continue
        here = here[key] if there else None  # type: ignore[index]
        if isinstance(key, int):
            name = here.get("name") if isinstance(here, Mapping) else None
            text += f" {key + 1}" + (
                f" ({shown(name)}):" if isinstance(name, str) else ":"
            )
        else:
            text += (
                "" if not text else " " if text.endswith(":") else "."
            ) + shortened(key, _MAX_SHOWN)
    return text.removesuffix(":")


def _keys_at(model: type[BaseModel], loc: Keys) -> list[str]:
    """Return the keys that the table at `loc` allows; those of all tables of a union."""
    tables: list[type] = [model]
    for key in loc:
        inner = [_fields(table)[key] for table in tables if key in _fields(table)]
        if inner:
            tables = []
            for annotation in inner:
                tables += _tables_in(annotation)
    known: list[str] = []
    for table in tables:
        if issubclass(table, StrictModel):
            known += table.known_keys()
        else:
            known += map(str, _fields(table))
    return list(dict.fromkeys(known))


def _fields(table: type) -> Mapping[str | int, Any]:
    if issubclass(table, BaseModel):
        return {name: field.annotation for name, field in table.model_fields.items()}
    if is_dataclass(table):
        return {field.name: field.type for field in fields(table)}
    return {}


def _tables_in(annotation: object) -> list[type]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or is_dataclass(annotation)
    ):
        return [annotation]
    tables = []
    for part in get_args(annotation):
        tables += _tables_in(part)
    return tables

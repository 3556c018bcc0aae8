"""Documents that cross a file boundary: pydantic models, one parser, one error formatter.

A document is plain values from TOML, json or Python. Users never see pydantic's own messages: every problem names the
key, what is allowed and what it got, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from simmat.errors import ConfigError, SimMATError, all_problems, nearest, shortened
from simmat.io.files import read_bytes

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[str | int, ...]

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_IS_MISSING = "is missing"
_MISSING = ("missing", "missing_argument")
_TAGS = ("union_tag_invalid", "union_tag_not_found")
_WORDING = (
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
_FEW_KEYS = 20
"""At most this many known keys are listed together with a suggestion."""
_MAX_TOML_BYTES = 2**24


class Document(BaseModel):
    """A frozen table of known keys: no conversion between strings, numbers and booleans, and only finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def known_keys(cls) -> list[str]:
        """Return every key that this table allows."""
        return list(cls.model_fields)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong across fields."""
        yield from ()


@dataclass(frozen=True)
class Problem:
    """One problem of a document.

    Attributes:
        keys: path to it: keys of tables, and indices of list entries from 0.
        place: the list entries on the path, each by its number from 1 and its name: "channel 2 ('nir')".
        key: the path below the last list entry, joined with dots; "" if the entry itself is wrong.
        demand: what is allowed, such as "must be greater than 0", and what it got; or "is missing".
        known: for an unknown key, the keys allowed in its place; else None.
    """

    keys: Keys
    place: str
    key: str
    demand: str
    known: tuple[str, ...] | None = None

    @property
    def guess(self) -> str | None:
        """The known key nearest to an unknown one."""
        key = str(self.keys[-1]) if self.keys else ""
        return nearest(key.replace("-", "_"), self.known or ()) or nearest(key, self.known or ())

    @property
    def hint(self) -> str:
        """What to write after an unknown key: the nearest key, and all keys where they are few or none is near."""
        if not self.known:
            return "; there are none, leave it out"
        every = "" if self.guess and len(self.known) > _FEW_KEYS else f" Keys: {', '.join(self.known)}"
        return (f"; did you mean {self.guess!r}?" if self.guess else ".") + every

    def __str__(self) -> str:
        words = f"{self.key} {self.demand}".lstrip() if self.known is None else f"no key {self.key!r}{self.hint}"
        return f"{self.place}{': ' if self.place and self.key else ' ' if self.place else ''}{words}"


class InvalidDocument(ValueError):
    """A document that does not match its model; the message holds every problem."""

    def __init__(self, problems: Sequence[Problem | str]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def validate(model: type[Model], values: object) -> Model:
    """Return a document as its model; raise InvalidDocument, which holds every problem."""
    try:
        found = model.model_validate(values)
    except ValidationError as error:
        raise InvalidDocument(problems_of(error, model, values)) from error
    if isinstance(found, Document) and (across := list(found.problems())):
        raise InvalidDocument(across)
    return found


def parse(model: type[Model], values: object, where: str) -> Model:
    """Return a document as its model; raise ConfigError, which names `where` and holds every problem."""
    try:
        return validate(model, values)
    except InvalidDocument as invalid:
        raise ConfigError(listed(where, invalid.problems)) from invalid


def listed(where: str, problems: Sequence[object]) -> str:
    """Return one message with all problems of a file, each once."""
    lines = list(dict.fromkeys(map(str, problems)))
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return all_problems(f"{where}: {len(lines)} problems:", lines, most=40)


def problems_of(error: ValidationError, model: type[BaseModel], values: object) -> list[Problem]:
    """Return the problems that pydantic found in a document, one per place."""
    found: dict[Keys, Problem] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:  # pydantic reports this if all entries are wrong
            continue
        problem = _problem(detail, model, values)
        if (other := found.get(problem.keys)) and other.known is None:  # each member of a union reports its own error
            demand, _, got = other.demand.partition(", got ")
            more = problem.demand.removeprefix("must be ").partition(", got ")[0]
            if more not in demand.split(" or ")[-1]:
                problem = replace(problem, demand=f"{demand} or {more}" + f", got {got}" * bool(got))
            else:
                problem = other
        found[problem.keys] = problem
    misspelt = {(*p.keys[:-1], p.guess) for p in found.values() if p.known is not None}
    inner = {p.keys[:length] for p in found.values() for length in range(len(p.keys))}
    return [
        p
        for p in found.values()
        if not (p.demand == _IS_MISSING and p.keys in misspelt)
        # Where a value or a table is allowed and an error lies inside the table, report only that error.
        and not (p.keys in inner and p.demand.startswith("must be"))
    ]


def as_tuples(value: Any) -> Any:
    """Return lists as tuples at every depth: json and TOML have no tuples, and strict models accept no lists."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def of_dataclass(kind: type[Any]) -> BeforeValidator:
    """Return a validator that reads a table as a plain dataclass, as strictly as a `Document`."""
    hints = get_type_hints(kind)
    given = {f.name: (hints[f.name], ... if f.default is MISSING else f.default) for f in fields(kind)}
    table: type[Document] = create_model(kind.__name__, __base__=Document, **given)  # type: ignore[call-overload]

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


def _demand(detail: Mapping[str, Any]) -> str:
    """Return what a pydantic error asks for: "must be greater than 0"."""
    context = detail.get("ctx", {})
    if detail["type"] in ("value_error", "assertion_error"):
        return str(context["error"])
    if detail["type"] in _TAGS:
        return (
            f"must be one of {context['expected_tags']}".replace("'", "") if "expected_tags" in context else _IS_MISSING
        )
    words = str(detail["msg"])
    for pattern, word in _WORDING:
        words = re.sub(pattern, word, words)
    return words if words.startswith("must") else f"is not valid: {words}"


def allowed_values(model: type[BaseModel], key: str) -> str:
    """Return what values a key of a document allows, worded as in its error: "a number", "'K' or 'C'"."""
    try:
        validate(model, {key: object()})
    except InvalidDocument as invalid:
        for problem in invalid.problems:
            if isinstance(problem, Problem) and problem.keys == (key,):
                return problem.demand.removeprefix("must be ").rpartition(", got ")[0]
    return "any value"


def shown(value: object) -> str:
    """Return a value as shown in a message; a long one is cut."""
    return shortened(repr(list(value) if isinstance(value, tuple) else value), _MAX_SHOWN)


def read_toml(path: Path, kind: str, *, hint: str = "") -> dict[str, Any]:
    """Read a TOML file in UTF-8 of at most 16 MiB; a ConfigError names its `kind`, and the `hint` if it is missing."""
    with suppress(OSError):  # `read_bytes` reports what the system refuses
        if not path.exists():
            raise ConfigError(f"no {kind} {path}" + (f"; {hint}" if hint else ""))
    content = read_bytes(path, kind, limit=_MAX_TOML_BYTES, error=ConfigError)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits raises a plain ValueError
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _problem(detail: Mapping[str, Any], model: type[BaseModel], values: object) -> Problem:
    kind, got, loc = detail["type"], detail["input"], tuple(detail["loc"])
    demand, known = _demand(detail), None
    if kind in _UNKNOWN:
        known = tuple(_keys_at(model, loc[:-1]))
    elif kind in _MISSING and isinstance(loc[-1], str):
        demand = _IS_MISSING
    elif kind in _MISSING:  # in a list with a fixed number of entries
        loc, demand = loc[:-1], "must have more entries"
    elif loc[-1:] == ("[key]",):
        loc, demand = loc[:-2], f"has a key that {demand}"
    elif kind in _TAGS:
        name = str(detail["ctx"]["discriminator"]).strip("'")
        loc, got = (*loc, name), got.get(name) if isinstance(got, Mapping) else got
    # A validator of a whole table names the values in its own message.
    complete = kind == "value_error" and isinstance(got, Mapping) and not demand.startswith("must")
    if known is None and demand != _IS_MISSING and not complete:
        demand = f"{demand}, got {shown(got)}"
    return Problem(*_place(loc, values, absent=kind in _UNKNOWN + _MISSING + _TAGS), demand, known)


def _place(loc: Keys, values: object, *, absent: bool) -> tuple[Keys, str, str]:
    """Return the keys of a problem without the union tags that pydantic inserts, and its `place` and `key` in words.

    `absent` says that the last key may not be in the document.
    """
    keys: list[str | int] = []
    places: list[str] = []
    below: list[str] = []
    here: Any = values
    for number, key in enumerate(loc):
        if not (there := _has(here, key)) and not (absent and number == len(loc) - 1):
            continue
        here = here[key] if there else None
        keys.append(key)
        if isinstance(key, int):
            name = here.get("name") if isinstance(here, Mapping) else None
            entry = f"{key + 1} ({shown(name)})" if isinstance(name, str) else f"{key + 1}"
            places.append(f"{'.'.join(below)} {entry}".lstrip())
            below = []
        else:
            below.append(shortened(key, _MAX_SHOWN))
    return tuple(keys), ": ".join(places), ".".join(below)


def _has(here: object, key: str | int) -> bool:
    if isinstance(here, Mapping):
        return key in here
    return isinstance(here, list | tuple) and isinstance(key, int) and key < len(here)


def _keys_at(model: type[BaseModel], loc: Keys) -> list[str]:
    """Return the keys that the table at `loc` allows; for a union of tables, a tag in `loc` picks the member."""
    tables: list[type] = [model]
    for key in loc:
        inner = [_fields(table)[key] for table in tables if key in _fields(table)]
        if inner:
            tables = [table for annotation in inner for table in _tables_in(annotation)]
        else:
            tagged = [table for table in tables if any(key in get_args(kind) for kind in _fields(table).values())]
            tables = tagged or tables
    return list(dict.fromkeys(key for table in tables for key in _known_keys(table)))


def _fields(table: type) -> Mapping[str | int, Any]:
    if issubclass(table, BaseModel):
        return {name: field.annotation for name, field in table.model_fields.items()}
    return {field.name: field.type for field in fields(table)} if is_dataclass(table) else {}


def _known_keys(table: type) -> Iterable[str]:
    return table.known_keys() if issubclass(table, Document) else (str(key) for key in _fields(table))


def _tables_in(annotation: object) -> list[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]

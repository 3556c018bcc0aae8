"""What a document is refused with: the key, the value, what is allowed; nothing in the words of a library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Discriminator, Field, JsonValue

from simmat.bundle import BundleSpec
from simmat.config import TrainConfig
from simmat.data.card import DataCard
from simmat.documents import StrictModel, parse, read_toml
from simmat.errors import ConfigError, SimMATError
from simmat.model_spec import ModelSpec
from simmat.sensors.sensor_toml import SensorDefinition
from simmat.training.run_folder import RunNotes

FOREIGN = re.compile(
    r"Input should|Field required|Extra inputs|\[key\]|Value error|valid (integer|string|number|tuple|list|dictionary)"
    r"|unable to parse|validation error|pydantic|function-|type=|input_value",
    re.IGNORECASE,
)
"""Words that only a library says."""
MODELS: tuple[type[BaseModel], ...] = (
    TrainConfig,
    DataCard,
    SensorDefinition,
    ModelSpec,
    BundleSpec,
    RunNotes,
)
WRONG: tuple[Any, ...] = (
    None, True, -1, 0.5, 10**30, 10**400, float("nan"), float("inf"), "", "x", "a b", "\udc80", b"x", [], [None],
    [[1]], ["x", "x"], [1, 2, 3], (), {}, {"x": None}, {1: 2}, {"kind": "x"}, {"kind": 3}, [{}], [{"name": 3, "x": 1}],
    object(),
)  # fmt: skip


class Left(StrictModel):
    kind: Literal["left"]
    length: Annotated[float, Field(gt=0)]


class Right(StrictModel):
    kind: Literal["right"]
    width: int


class Leaf(StrictModel):
    name: str
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    numbers: Annotated[tuple[int, ...], Field(strict=False)] = ()
    side: Annotated[Left | Right, Discriminator("kind")] | None = None


class Tree(StrictModel):
    leaf: Annotated[tuple[Leaf, ...], Field(strict=False)] = ()
    names: dict[Annotated[int, Field(strict=False)], str] = Field(default_factory=dict)
    picks: Annotated[tuple[str | int, ...], Field(strict=False)] = ()
    options: dict[str, JsonValue] = Field(default_factory=dict)
    pair: Annotated[tuple[float, float], Field(strict=False)] = (0.0, 1.0)
    sizes: dict[str, str | dict[str, str]] = Field(default_factory=dict)

    def problems(self) -> Iterator[str]:
        if len(self.leaf) > 2:
            yield f"a tree has at most 2 leaves, got {len(self.leaf)}"


def refused(model: type[BaseModel], values: object) -> str:
    with pytest.raises(SimMATError) as caught:
        parse(model, values, "a.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"leaf": [{"name": "a"}, {"name": "b", "share": 2}]}, r"2 \('b'\): share .* 1, got 2"),
        ({"leaf": [{"name": "a", "shear": 2}]}, r"leaf 1 \('a'\): .*'shear'.*'share'"),
        ({"leaf": [{}]}, "leaf 1: name is missing"),
        ({"leaf": ["a"]}, "leaf 1 .* table, got 'a'"),
        ({"leaf": [{"name": "a", "numbers": [1, "2"]}]}, r"leaf 1 \('a'\): numbers 2 .*whole number, got '2'"),
        ({"leaf": [{"name": "a", "side": {"kind": "up"}}]}, "side .*kind .*left.*right"),
        ({"leaf": [{"name": "a", "side": {"kind": "left", "length": 1, "widht": 1}}]}, "side: .*'widht'.*'width'"),
        ({"leaf": [{"name": "a", "side": {"kind": "left", "length": True}}]}, "side.length .*number, got True"),
        ({"names": {"person": "x"}}, "names.person .*whole number, got 'person'"),
        ({"picks": [0.5]}, "picks 1 .*string or a whole number, got 0.5"),
        ({"options": {"a": {"b": float("nan")}}}, "options.a.b .*finite number, got nan"),
        ({"pair": [1]}, "pair 2 is missing"),
        ({"pair": [1, 2, 3]}, r"pair .* 2 .*, got \[1, 2, 3\]"),
        ([1], r"table, got \[1\]"),
        ({"leaf": [{"name": "a"}] * 3}, "at most 2 .*, got 3"),
        ({"tree": 1}, "no key 'tree'.* leaf, names"),
        ({"sizes": {"a": {"b": 1}}}, "sizes.a.b .*string, got 1"),
        ({"sizes": {"a": 1}}, "sizes.a .*string or a table, got 1"),
    ],
)  # fmt: skip
def test_a_problem_names_the_key_the_value_and_what_is_allowed(
    values: object, said: str
) -> None:
    """A number of a list entry alone sends a user to count; a type's name alone says nothing of what to write."""
    message = refused(Tree, values)
    assert message.startswith("a.toml: ")
    assert re.search(said, message)
    assert not FOREIGN.search(message)


def test_all_problems_come_in_one_message() -> None:
    """Each run that shows one problem costs a user a run."""
    with pytest.raises(ConfigError, match=r"a\.json: 2 problems:\n.*picks.*\n.*pair"):
        parse(Tree, {"picks": 3, "pair": "x"}, "a.json")


def test_a_table_of_several_kinds_names_the_key_that_decides() -> None:
    """Without it nothing says what the others mean."""
    assert "kind" in refused(Leaf, {"name": "a", "side": {"length": 1.0}})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_wrong_value_of_any_field_is_reported_plainly(model: type[BaseModel]) -> None:
    """Whatever kind of error each field can raise, at its top or one list or table below."""
    for name in (*model.model_fields, "no_such_key"):
        for value in WRONG:
            for values in ({name: value}, {name: [value]}, {name: {"x": value}}):
                with pytest.raises(SimMATError) as caught:
                    parse(model, values, "a.toml")
                found = FOREIGN.search(str(caught.value))
                assert not found, (values, str(caught.value))


def test_a_document_is_frozen_strict_and_finite() -> None:
    """No text becomes a number and no truth value either, whoever wrote it."""
    for wrong in ("1", True, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="share must be a"):
            parse(Leaf, {"name": "a", "share": wrong}, "a.toml")
    assert parse(Leaf, {"name": "a", "share": 1}, "a.toml").share == 1.0


def test_a_byte_order_mark_is_not_a_part_of_the_file(tmp_path: Path) -> None:
    """Editors of one system write it, unseen."""
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_toml(tmp_path / "a.toml", "config file") == {"x": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "{path}; see the docs"),
        (b"x = ", "{path} is not valid TOML"),
        (b"x = " + b"9" * 5000, "{path} is not valid TOML"),
        (b"x = " + b"[" * 3000, "{path} is not valid TOML"),
        (b"x = '\xff'", "{path} is not UTF-8 text at byte 5"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_by_name(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    """A traceback of a parser says neither which file nor what to do."""
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path, "config file", hint="see the docs")
    assert said.format(path=path) in str(caught.value)


def test_a_file_that_no_person_wrote_is_refused(tmp_path: Path) -> None:
    """Parsing it would take minutes and all memory."""
    with (tmp_path / "a.toml").open("wb") as stream:
        stream.truncate(2**24 + 1)
    with pytest.raises(ConfigError, match=r"a\.toml: .*16 MiB.*config file"):
        read_toml(tmp_path / "a.toml", "config file")

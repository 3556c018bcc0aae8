"""Families: a whole library of foundation models behind one name."""

from __future__ import annotations

import json
import sys
import types
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from bundles import change_json, tiny_bundle
from runs import registry as installed

from simmat.bundle import load_bundle
from simmat.cli import run
from simmat.errors import (
    PluginError,
    SimMATError,
    SpecError,
    UnknownNameError,
    WeightsError,
)
from simmat.io.weights import find_weights
from simmat.plugin_specs import FoundationFamily, FoundationSpec, WeightFile
from simmat.plugins.registry import Registry

FAMILY = FoundationFamily("zoo", "any beast", "zoo_models:models", "zoo_models:spec")


def spec(name: str) -> FoundationSpec:
    return FoundationSpec(
        name, "a model", "m:f", 64, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    )


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A library with two models, importable under a name of its own."""
    module = types.ModuleType("zoo_models")
    module.calls = []  # type: ignore[attr-defined]
    module.models = lambda: {"lion": "roars", "lynx": "purrs"}  # type: ignore[attr-defined]

    def find(model: str) -> FoundationSpec | None:
        module.calls.append(model)  # type: ignore[attr-defined]
        return spec(f"zoo/{model}") if model in ("lion", "lynx", "hidden") else None

    module.spec = find  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo_models", module)
    return module


def registry(*more: tuple[str, object, str]) -> Registry:
    return Registry([], [("foundation family", FAMILY, "simmat-plugin-zoo 1"), *more])  # type: ignore[list-item]


def test_a_model_is_found_by_its_full_name_alone(zoo: types.ModuleType) -> None:
    """A bundle keeps no more than the name; asked twice, the library is asked once."""
    names = registry()
    assert names.foundation("zoo/lion").name == "zoo/lion"
    assert names.foundation("zoo/lion") is names.foundation("zoo/lion")
    assert names.owner("foundation model", "zoo/lion") == "simmat-plugin-zoo 1"
    assert zoo.calls == ["lion"]


def test_no_server_is_asked_about_a_name_that_only_a_bundle_gives(
    zoo: types.ModuleType, tmp_path: Path
) -> None:
    """A stranger wrote it, and could see who uses the bundle; the user's own word is enough."""

    def refuse(model: str) -> FoundationSpec | None:
        raise WeightsError(f"{model} is not here")

    zoo.refuse = refuse  # type: ignore[attr-defined]
    change_json(tiny_bundle(tmp_path / "b"), foundation="zoo/lion")
    family = replace(FAMILY, local_spec="zoo_models:refuse")
    names = partial(
        Registry,
        [],
        [
            ("modality", installed().modality("gray"), "a"),
            ("foundation family", family, "b"),
        ],
    )
    with pytest.raises(WeightsError, match="lion is not here"):
        load_bundle(tmp_path / "b", names())
    assert zoo.calls == []
    with suppress(SimMATError):
        load_bundle(tmp_path / "b", names(), foundation="zoo/lion")
    assert zoo.calls == ["lion"]


@pytest.mark.usefixtures("zoo")
def test_an_unknown_model_is_refused_with_the_nearest_and_the_way_to_the_list() -> None:
    """Hundreds of names would fill the screen."""
    with pytest.raises(UnknownNameError, match=r"'zoo/liom'.*'zoo/lion'.*list zoo/"):
        registry().foundation("zoo/liom")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"spec": "zoo_models:nothing"},
            SpecError,
            "cannot import 'zoo_models:nothing'",
        ),
        (
            {"spec": "os.path:split"},
            PluginError,
            r"FoundationSpec .*'zoo/lion', got tuple",
        ),
        ({"spec": "zoo_models:wrong"}, PluginError, r"'zoo/lion', got .*'zoo/x'"),
        (
            {"spec": "zoo_models:newer"},
            PluginError,
            r"'zoo/lion' .*API 99.*upgrade simmat",
        ),
        (
            {"spec": "zoo_models:broken"},
            PluginError,
            r"'zoo' failed: ZeroDivisionError",
        ),
    ],
)
def test_what_a_library_raises_is_one_line(
    zoo: types.ModuleType, change: dict[str, str], error: type[Exception], message: str
) -> None:
    """A plugin's mistake must not end in a traceback of ours."""
    zoo.wrong = lambda model: spec("zoo/x")  # type: ignore[attr-defined]
    zoo.newer = lambda model: replace(spec("zoo/lion"), api_version=99)  # type: ignore[attr-defined]
    zoo.broken = lambda model: 1 / 0  # type: ignore[attr-defined]
    names = Registry([], [("foundation family", replace(FAMILY, **change), "z 1")])
    with pytest.raises(error, match=message):
        names.foundation("zoo/lion")


@pytest.mark.usefixtures("zoo")
def test_the_models_of_a_family_are_listed_by_a_part_of_their_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One looks for dinov2 among a thousand."""
    monkeypatch.setattr("simmat.cli.options.installed", registry)
    assert run(["foundations", "list", "zoo/", "--match", "ly"]) == 0
    said = capsys.readouterr().out
    assert "zoo/lynx" in said
    assert "zoo/lion" not in said
    assert run(["foundations", "list", "zoo", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == [
        "zoo/lion",
        "zoo/lynx",
    ]


def test_weights_of_a_hub_are_found_in_its_own_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another library has loaded need not be loaded again."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path)
    )
    wanted = replace(
        spec("zoo/lion"),
        weights=WeightFile("a.safetensors", "", hub="o/lion", alternatives=("b.bin",)),
    )
    with pytest.raises(WeightsError, match=r"a.safetensors or b.bin of o/lion"):
        find_weights(wanted)
    repository = tmp_path / "models--o--lion"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "snapshots" / "c0ffee" / "b.bin").write_bytes(b"x")
    assert find_weights(wanted) == repository / "snapshots" / "c0ffee" / "b.bin"

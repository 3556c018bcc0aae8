"""`simmat modalities`, `foundations` and `plugins`: what a user sees of what is installed."""

import json
import re
from typing import Literal

import pytest
from pydantic import Field

from simmat.cli import run
from simmat.plugin_specs import FoundationSpec, WeightFile
from simmat.plugins.registry import PluginReport, Registry
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.options import ModalityOptions
from simmat.types import Channel, SensorImage


def fake_plugins(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("simmat.cli.options.installed", lambda: registry)
    monkeypatch.setattr("simmat.cli.plugins.load_plugins", lambda: registry)


def spec(name: str) -> FoundationSpec:
    return FoundationSpec(
        name, "a model", "m:f", 64, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    )


class _RadarOptions(ModalityOptions):
    scale: Literal["amplitude", "dB"] = Field(
        "amplitude", description="What the numbers are."
    )


class _Radar(ModalityAdapter):
    name = "radar"
    description = "a radar"
    sources = (Source("radar", (".png",)),)
    channels = (Channel("radar", "amplitude", "count"),)
    Options = _RadarOptions

    def load(self, files: PathsBySource) -> SensorImage:
        raise NotImplementedError


@pytest.fixture
def radar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor with an option is all that is installed."""
    fake_plugins(monkeypatch, Registry([], [("modality", _Radar(), "p 1")]))


@pytest.mark.usefixtures("radar")
def test_options_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever's files are in another unit finds here what to say."""
    assert run(["modalities", "list"]) == 0
    assert "scale" in capsys.readouterr().out
    assert run(["modalities", "show", "radar"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "OPTION ALLOWED DEFAULT MEANING scale amplitude or dB amplitude What the numbers are. nodata"
        in shown
    )


@pytest.mark.plugins("sam")
def test_models_are_listed_with_where_their_weights_are(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    """Whether a download of 2.5 GB stands before the training is the first question."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    assert run(["foundations", "list"]) == 0
    rows = {
        line.split()[0]: line
        for line in capsys.readouterr().out.splitlines()
        if line[:1].strip()
    }
    assert "to fetch, 375 MB" in rows["sam_vit_b"]
    assert "random" in rows["tiny"]


@pytest.mark.plugins("lite")
def test_models_are_listed_with_size_and_time_on_this_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever waits for each click must know; a random model has no time."""
    assert run(["foundations", "list", "--time", "--json"]) == 0
    models = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert models["lite"]["parameters"] == 4_492_362
    assert models["lite"]["encode_ms"] > models["lite"]["click_ms"] > 0
    assert "encode_ms" not in models["tiny"]
    assert run(["foundations", "list"]) == 0
    assert "4.5 M" in capsys.readouterr().out


@pytest.mark.plugins
def test_a_model_without_a_weight_file_cannot_be_fetched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Silence would look like success."""
    assert run(["foundations", "fetch", "tiny"]) == 2
    assert "'tiny'" in capsys.readouterr().err


def test_fetched_weights_are_named_by_their_path(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
) -> None:
    """A script goes on with the path; the bar goes to standard error."""
    registry = Registry([], [("foundation model", spec("m"), "x 1")])
    object.__setattr__(
        registry.foundation("m"),
        "weights",
        WeightFile("m.pth", "0" * 64, url="http://localhost/m"),
    )
    fake_plugins(monkeypatch, registry)
    monkeypatch.setattr(
        "simmat.io.weights.fetch",
        lambda file, progress: progress(5, 10) or f"/cache/{file.filename}",
    )
    assert run(["foundations", "fetch", "m"]) == 0
    assert capsys.readouterr().out == "/cache/m.pth\n"


def test_every_plugin_is_listed_with_what_it_gives_or_why_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One screen answers: what is here, what is broken, what was left out."""
    reports = [
        PluginReport(
            "a", "simmat-plugin-a", "1.0", {"foundation model": ("a-base", "a-large")}
        ),
        PluginReport("b", "simmat-plugin-b", "2.0", error="ImportError: no libb.so"),
        PluginReport("c", "simmat-plugin-c", "3.0", {"tuner": ("c",)}),
        PluginReport("d", "simmat-plugin-d", "4.0", off=True),
    ]
    claims = [
        ("foundation model", spec("same"), "simmat-plugin-a 1.0"),
        ("foundation model", spec("same"), "e 5"),
    ]
    fake_plugins(monkeypatch, Registry(reports, claims))  # type: ignore[arg-type]
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["plugins", "list"]) == 0
    said = capsys.readouterr().out
    for part in (
        "a       simmat-plugin-a  1.0      ok      foundation models: a-base, a-large",
        "b       simmat-plugin-b  2.0      failed  ImportError: no libb.so",
        "c       simmat-plugin-c  3.0      ok      tuners: c",
        "d       simmat-plugin-d  4.0      off     left out by SIMMAT_PLUGINS",
        "foundation model 'same' is claimed by simmat-plugin-a 1.0 and e 5: not usable until one is uninstalled",
    ):
        assert part in said
    assert run(["plugins", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [plugin["state"] for plugin in listed["plugins"]] == [
        "ok",
        "failed",
        "ok",
        "off",
    ]
    assert listed["conflicts"][0]["claimed_by"] == ["simmat-plugin-a 1.0", "e 5"]


def test_other_commands_mention_failed_plugins_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that is missing from the list has a reason, and the reason has a place."""
    fake_plugins(
        monkeypatch, Registry([PluginReport("b", "p", "1", error="ImportError: x")], [])
    )
    assert run(["modalities", "list"]) == 0
    assert re.match("warning: .*: b; .*simmat plugins list", capsys.readouterr().err)

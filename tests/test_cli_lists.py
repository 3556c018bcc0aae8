"""`simmat modalities`, `foundations` and `plugins`: what a user sees of what is installed."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from simmat.cli import run
from simmat.foundation import FoundationSpec, WeightFile
from simmat.modality import ModalityAdapter, Source
from simmat.plugins import PluginReport, Registry
from simmat.types import SensorImage


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in parts alone, whatever is installed on this machine."""
    monkeypatch.setenv("SIMMAT_PLUGINS", "")


def fake_plugins(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("simmat.cli.common.load_plugins", lambda: registry)
    monkeypatch.setattr("simmat.cli.plugins.load_plugins", lambda: registry)


def spec(name: str) -> FoundationSpec:
    return FoundationSpec(name, "a model", "m:f", 64, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.usefixtures("only")
def test_sensors_are_listed_with_their_channels_and_package(capsys: pytest.CaptureFixture[str]) -> None:
    """A user chooses by what the sensor is, and a bug report by where it comes from."""
    assert run(["modalities", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1].strip()}
    assert set(rows) == {"NAME", "rgb", "gray", "raster"}
    assert f"simmat {importlib.metadata.version('simmat')}" in rows["rgb"]
    assert "as in the file" in rows["raster"]


@pytest.mark.usefixtures("only")
def test_a_sensor_is_shown_with_units_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    """The unit decides whether one's own files fit."""
    assert run(["modalities", "show", "rgb"]) == 0
    said = capsys.readouterr().out
    for part in ("rgb (reference grid)", ".png", "red", "srgb", "count", "0 to 255"):
        assert part in said


@pytest.mark.usefixtures("only")
def test_a_composition_is_shown_like_a_sensor(capsys: pytest.CaptureFixture[str]) -> None:
    """What `--modality rgb+gray` expects of a data set must be visible beforehand."""
    assert run(["modalities", "show", "rgb+gray", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [source["name"] for source in shown["sources"]] == ["rgb", "gray"]
    assert len(shown["channels"]) == 4


@pytest.mark.usefixtures("only")
def test_an_unknown_sensor_ends_with_2_and_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and the way on."""
    assert run(["modalities", "show", "rbg"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no modality 'rbg'; did you mean 'rgb'?")


class _Sensor(ModalityAdapter):
    def __init__(self, name: str, variant_of: str = "") -> None:
        self.name, self.variant_of, self.description = name, variant_of, f"the {name}"
        self.sources = (Source("x", (".png",)),)

    def load(self, files: Mapping[str, Path]) -> SensorImage:
        raise NotImplementedError


def sensors(monkeypatch: pytest.MonkeyPatch, *adapters: ModalityAdapter) -> None:
    fake_plugins(monkeypatch, Registry([], [("modality", adapter, "p 1") for adapter in adapters]))


def names_of(text: str) -> list[str]:
    """What begins a line."""
    return [line.split()[0] for line in text.splitlines() if line[:1].strip()]


def test_variants_stand_on_their_sensors_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of sensors is read to choose one; twenty spellings of one would hide the others."""
    sensors(monkeypatch, _Sensor("eye"), _Sensor("radar"), *(_Sensor(f"radar-{n}", "radar") for n in range(8)))
    assert run(["modalities", "list"]) == 0
    out = capsys.readouterr().out
    assert names_of(out) == ["NAME", "eye", "radar"]
    assert "also radar-0, radar-1, radar-2, radar-3, radar-4, radar-5 and 2 more: --all" in " ".join(out.split())


@pytest.mark.parametrize("options", [["list", "--all"], ["list", "--json"]])
def test_every_variant_can_be_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """What can be asked for must be found somewhere; programs read all of it."""
    sensors(monkeypatch, _Sensor("radar"), _Sensor("radar-db", "radar"))
    assert run(["modalities", *options]) == 0
    assert "the radar-db" in capsys.readouterr().out


def test_a_variant_of_a_sensor_that_is_not_there_has_its_own_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing usable may vanish from the list because another plugin is missing."""
    sensors(monkeypatch, _Sensor("radar-db", "radar"))
    assert run(["modalities", "list"]) == 0
    assert names_of(capsys.readouterr().out) == ["NAME", "radar-db"]


def test_a_sensor_is_shown_with_its_variants(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever's files are in another unit looks at the sensor first."""
    sensors(monkeypatch, _Sensor("radar"), _Sensor("radar-db", "radar"))
    assert run(["modalities", "show", "radar"]) == 0
    assert "radar-db  the radar-db" in capsys.readouterr().out


@pytest.mark.usefixtures("only")
def test_models_are_listed_with_where_their_weights_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Whether a download of 2.5 GB stands before the training is the first question."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path))
    assert run(["foundations", "list"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1].strip()}
    assert "to fetch, 375 MB" in rows["sam_vit_b"]
    assert "random" in rows["sam_vit_tiny"]


@pytest.mark.usefixtures("only")
def test_a_model_without_a_weight_file_cannot_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    """Silence would look like success."""
    assert run(["foundations", "fetch", "sam_vit_tiny"]) == 2
    assert "'sam_vit_tiny' has no weight file: it is random from its seed" in capsys.readouterr().err


def test_fetched_weights_are_named_by_their_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """A script goes on with the path; the bar goes to standard error."""
    registry = Registry([], [("foundation model", spec("m"), "x 1")])
    object.__setattr__(registry.foundation("m"), "weights", WeightFile("m.pth", "0" * 64, url="http://localhost/m"))
    fake_plugins(monkeypatch, registry)
    monkeypatch.setattr("simmat.weights.fetch", lambda file, progress: progress(5, 10) or f"/cache/{file.filename}")
    assert run(["foundations", "fetch", "m"]) == 0
    assert capsys.readouterr().out == "/cache/m.pth\n"


def test_every_plugin_is_listed_with_what_it_gives_or_why_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One screen answers: what is here, what is broken, what makes it slow, what was left out."""
    reports = [
        PluginReport("a", "simmat-plugin-a", "1.0", {"foundation model": ("a-base", "a-large")}, 0.01),
        PluginReport("b", "simmat-plugin-b", "2.0", error="ImportError: no libb.so"),
        PluginReport("c", "simmat-plugin-c", "3.0", {"tuner": ("c",)}, 2.34, imports_torch=True),
        PluginReport("d", "simmat-plugin-d", "4.0", off=True),
    ]
    claims = [("foundation model", spec("same"), "simmat-plugin-a 1.0"), ("foundation model", spec("same"), "e 5")]
    fake_plugins(monkeypatch, Registry(reports, claims))  # type: ignore[arg-type]
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["plugins", "list"]) == 0
    said = capsys.readouterr().out
    for part in (
        "a       simmat-plugin-a  1.0      ok      foundation models: a-base, a-large",
        "b       simmat-plugin-b  2.0      failed  ImportError: no libb.so",
        "c       simmat-plugin-c  3.0      slow    tuners: c",
        "took 2.3 s to load",
        "imports torch when loaded",
        "d       simmat-plugin-d  4.0      off     left out by SIMMAT_PLUGINS",
        "foundation model 'same' is claimed by simmat-plugin-a 1.0 and e 5: not usable until one is gone",
    ):
        assert part in said
    assert run(["plugins", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [plugin["state"] for plugin in listed["plugins"]] == ["ok", "failed", "slow", "off"]
    assert listed["conflicts"][0]["claimed_by"] == ["simmat-plugin-a 1.0", "e 5"]


def test_other_commands_mention_failed_and_slow_plugins_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that is missing from the list has a reason, and the reason has a place."""
    built_in = PluginReport("builtin", "simmat", "1", seconds=9.0)
    reports = [built_in, PluginReport("b", "p", "1", error="ImportError: x"), PluginReport("c", "p", "1", seconds=2.34)]
    fake_plugins(monkeypatch, Registry(reports, []))
    assert run(["modalities", "list"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: failed to load: b; see simmat plugins list",
        "warning: plugin 'c' took 2.3 s to load",
    ]

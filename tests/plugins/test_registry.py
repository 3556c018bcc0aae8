"""Plugins: each on its own, and what they bring by name."""

import importlib.metadata
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from found_results import found_box, objects_result
from simmat_testing.find_parts import find_checkable
from simmat_testing.tiny import TINY
from virtual_envs import ADAPTER

from simmat.cli import run
from simmat.errors import ConfigError, PluginError, UnknownNameError
from simmat.inference import PredictOptions
from simmat.inference.request import Request, choose_formats
from simmat.inference.writer import write_result
from simmat.plugin_specs import API_VERSION, FoundationSpec, WeightFile
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import PluginReport, Registry
from simmat.sensors.composed_modality import ComposedModality

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package with one plugin: really on the path, with its metadata, as pip would lay it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def _install(
        package: str,
        source: str,
        *,
        entry: str | None = None,
        version: str = "1.2",
        declares: str | None = None,
    ) -> Path:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(
            textwrap.dedent(source), encoding="utf-8"
        )
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        )
        names = f"[simmat.names]\n{declares} = {module}\n" if declares else ""
        (info / "entry_points.txt").write_text(
            f"[simmat]\n{entry or module} = {module}\n{names}"
        )
        return tmp_path

    yield _install
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def load(folder: Path, **env: str) -> Registry:
    """Load what is installed in `folder` alone, whatever else is on this machine."""
    found = [
        entry
        for distribution in importlib.metadata.distributions(path=[str(folder)])
        for entry in distribution.entry_points.select(group="simmat")
    ]
    return load_plugins(found, env)


def report(registry: Registry, name: str) -> PluginReport:
    (found,) = [report for report in registry.reports if report.name == name]
    return found


def good(name: str) -> str:
    return ADAPTER.replace("NAME", name)


def test_an_installed_plugin_is_found_with_its_package_and_version(
    install: Install,
) -> None:
    """`simmat plugins list` must say what to upgrade."""
    registry = load(install("simmat-plugin-x", good("x")))
    x = report(registry, "simmat_plugin_x")
    assert (x.distribution, x.version, x.error) == ("simmat-plugin-x", "1.2", "")
    assert x.gives == {"modality": ("x",)}
    assert registry.owner("modality", "x") == "simmat-plugin-x 1.2"
    assert registry.modality("x").name == "x"


BROKEN = {
    "raises at import": (
        "raise RuntimeError('no licence file')",
        "RuntimeError: no licence file",
    ),
    "is no Python": ("def :", "SyntaxError"),
    "imports what is missing": (
        "import no_such_library",
        "No module named 'no_such_library'",
    ),
    "ends the process at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises at the hook": (
        good("bad").replace("return [Adapter()]", "raise ValueError('no camera')"),
        "ValueError: no camera",
    ),
    "raises while it gives": (
        good("bad").replace(
            "return [Adapter()]", "yield Adapter(); raise ValueError('half way')"
        ),
        "ValueError: half way",
    ),
    "returns None": (
        good("bad").replace("return [Adapter()]", "Adapter()"),
        "simmat_modalities returned None",
    ),
    "returns one item": (
        good("bad").replace("[Adapter()]", "Adapter()"),
        "list .* got Adapter",
    ),
    "returns a text": (
        good("bad").replace("[Adapter()]", "'bad'"),
        "list .* got str 'bad'",
    ),
    "returns rubbish in the list": (
        good("bad").replace("[Adapter()]", "[Adapter(), 7]"),
        "ModalityAdapter, got int 7",
    ),
    "returns the class": (
        good("bad").replace("[Adapter()]", "[Adapter]"),
        r"class Adapter.* Adapter\(\)",
    ),
    "gives a name twice": (
        good("bad").replace("[Adapter()]", "[Adapter(), Adapter()]"),
        "'bad' .*twice",
    ),
    "has a name nobody can type": (
        good("bad").replace('name = "bad"', 'name = "Bad + One"'),
        "lower case .* got 'Bad . One'",
    ),
    "has no name": (good("bad").replace('name = "bad"', ""), "got None"),
    "has no description": (
        good("bad").replace('description = "a sensor"', ""),
        "'bad' .*description",
    ),
    "has no sources": (
        good("bad").replace("sources = (", "sources = () and ("),
        "sources .*tuple",
    ),
    "has channels of another type": (
        good("bad").replace("channels = (Channel(", "channels = ('x',) or (Channel("),
        "channels .*tuple of Channel",
    ),
    "misspells a hook": (
        good("bad").replace("def simmat_modalities", "def simmat_modalites"),
        "simmat_modalites .*simmat_modalities",
    ),
    "forgets the mark": (
        good("bad").replace("@hookimpl", ""),
        "simmat_modalities .*@simmat.*hookimpl",
    ),
    "wants arguments": (
        good("bad").replace("simmat_modalities()", "simmat_modalities(host)"),
        "host",
    ),
    "has no hook": ("x = 1", "simmat_plugin_bad .*simmat_modalities"),
    "speaks a newer API": (
        good("bad").replace("description", "api_version = 99\n        description"),
        "plugin API 99",
    ),
}


@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_shows_its_cause_and_stops_no_other(
    install: Install, source: str, said: str
) -> None:
    """One bad package on a machine must not take all sensors away."""
    install("simmat-plugin-bad", source)
    registry = load(install("simmat-plugin-x", good("x")))
    assert re.search(said, report(registry, "simmat_plugin_bad").error)
    assert report(registry, "simmat_plugin_bad").gives == {}
    assert registry.modality("x").name == "x"
    assert "rgb" in registry.names("modality")
    assert "bad" not in registry.names("modality")


TUNER = """
    from simmat.plugin_specs import TunerSpec
    from simmat.plugins.hooks import hookimpl

    @hookimpl
    def simmat_tuners():
        return [TunerSpec('bad', 'a tuner', 'm:f', api_version=VERSION)]
    """


MODEL = """
    from simmat.plugin_specs import FoundationSpec
    from simmat.plugins.hooks import hookimpl

    @hookimpl
    def simmat_foundation_models():
        return [FoundationSpec('bad', 'a model', 'm:f', 64, 16, (0.0,) * 3, (1.0,) * 3, training={'out': '/tmp'})]
    """


def test_a_model_recommends_settings_of_training_alone(install: Install) -> None:
    """One that named a folder, or misspelt a setting, would be found in the middle of somebody's work."""
    registry = load(install("simmat-plugin-bad", MODEL))
    assert re.search(
        r"'bad' recommends out; .*batch_size",
        report(registry, "simmat_plugin_bad").error,
    )


@pytest.mark.parametrize(
    ("version", "cure"), [("99", "upgrade simmat"), ("0", "upgrade the plugin")]
)
@pytest.mark.parametrize("kind", ["modality", "tuner"])
def test_an_item_written_for_another_plugin_interface_is_named_and_stops_no_other(
    install: Install, kind: str, version: str, cure: str
) -> None:
    """Whatever kind it is: taken all the same, it would fail in the middle of a run."""
    sensor = good("bad").replace(
        "description", f"api_version = {version}\n        description"
    )
    install(
        "simmat-plugin-bad",
        sensor if kind == "modality" else TUNER.replace("VERSION", version),
    )
    registry = load(install("simmat-plugin-x", good("x")))
    error = report(registry, "simmat_plugin_bad").error
    assert re.search(f"{kind} 'bad' .*API {version}.* {API_VERSION}; {cure}", error)
    assert report(registry, "simmat_plugin_bad").gives == {}
    assert registry.modality("x").name == "x"


FORMAT = """
from simmat.plugins.hooks import hookimpl
from simmat.plugin_specs import ResultFormat

def write(result, folder):
    name = f"{result.name}_count.txt"
    (folder / name).write_text(f"{len(result.ranked)} objects")
    return name

@hookimpl
def simmat_result_formats():
    return [ResultFormat("count", "how many objects", f"{__name__}:write", ("_count.txt",), kinds=("objects",))]
"""


def test_a_plugin_brings_a_format(install: Install, tmp_path: Path) -> None:
    """A lab's own file format needs no change of SimMAT."""
    registry = load(install("simmat-plugin-count", FORMAT))
    chosen, _ = choose_formats(["count"], ["objects"], registry)
    assert (
        "_count.txt"
        in Request(PredictOptions(everything=True), ("objects",), chosen).endings()
    )
    written = write_result(
        objects_result((9, 9), found_box(1, 1, 3, 3)), chosen, tmp_path
    )
    assert [(name, (tmp_path / name).read_text()) for name in written] == [
        ("a_count.txt", "1 objects")
    ]


COMMAND = """
import click
from simmat.plugins.hooks import hookimpl

@click.command("NAME")
def command():
    "Count what is there."
    click.echo("counted")

@hookimpl
def simmat_commands():
    return [command]
"""


def test_a_plugin_s_command_is_listed_and_run(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A tool can be a package of its own, and is found where all others are."""
    folder = install("simmat-plugin-counter", COMMAND.replace("NAME", "count"))
    monkeypatch.setattr("simmat.plugins.loader.installed", lambda: load(folder))
    assert run(["count"]) == 0
    assert capsys.readouterr().out == "counted\n"
    assert run(["--help"]) == 0
    assert re.search(r"count +Count what is there", capsys.readouterr().out)
    assert run(["coun"]) == 2
    assert "'count'" in capsys.readouterr().err


def test_a_command_of_our_own_cannot_be_replaced(install: Install) -> None:
    """A plugin that answered to `train` could do anything in its name."""
    registry = load(install("simmat-plugin-counter", COMMAND.replace("NAME", "train")))
    assert "'train'" in report(registry, "simmat_plugin_counter").error
    assert registry.names("command") == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bundle show", "'bundle show'"),
        ("dat count", "'dat' .* data,"),
        ("train count", "'train' .*group"),
        ("data count all", "data count all"),
    ],
)
def test_a_command_below_a_group_must_be_new_and_the_group_ours(
    install: Install, name: str, said: str
) -> None:
    """As for a command of its own: nobody may answer in SimMAT's name, or where nobody looks."""
    registry = load(install("simmat-plugin-counter", COMMAND.replace("NAME", name)))
    assert re.search(said, report(registry, "simmat_plugin_counter").error)
    assert registry.names("command") == ()


def test_all_problems_of_a_plugin_are_reported_at_once(install: Install) -> None:
    """An author mends them in one go."""
    source = (
        good("bad").replace("[Adapter()]", "[7, 'x']")
        + "\n    @hookimpl\n    def simmat_tuners(): return 3\n"
    )
    error = report(
        load(install("simmat-plugin-bad", source)), "simmat_plugin_bad"
    ).error
    for part in ("3 problems", "got int 7", "got str 'x'", "got int 3"):
        assert part in error


def test_a_name_two_packages_claim_is_refused_when_used_naming_both(
    install: Install,
) -> None:
    """Which of two sensors reads the files must not depend on the order of folders."""
    install("simmat-plugin-x", good("same"))
    install("simmat-plugin-y", good("same"))
    registry = load(install("simmat-plugin-z", good("z")))
    with pytest.raises(
        PluginError, match=r"'same' .*simmat-plugin-x 1\.2 .*simmat-plugin-y 1\.2"
    ):
        registry.modality("same")
    with pytest.raises(
        PluginError, match=r"'same' .*simmat-plugin-x 1\.2 .*simmat-plugin-y 1\.2"
    ):
        find_checkable("same", registry)
    assert registry.conflicts() == {
        ("modality", "same"): ("simmat-plugin-x 1.2", "simmat-plugin-y 1.2")
    }
    assert "same" not in registry.names("modality")
    assert registry.modality("z").name == "z"


def test_a_plugin_cannot_take_a_built_in_name(install: Install) -> None:
    """`rgb` must mean the same on every machine, or say why it does not."""
    registry = load(install("simmat-plugin-x", good("rgb")))
    with pytest.raises(PluginError, match=r"'rgb' .*simmat-plugin-x"):
        registry.modality("rgb")


@pytest.mark.parametrize("wanted", ["one", "simmat-plugin-x", " one , "])
def test_a_list_starts_only_those_by_plugin_or_package_name(
    install: Install, wanted: str
) -> None:
    """A user knows one of the two names."""
    install("simmat-plugin-x", good("x"), entry="one")
    registry = load(
        install("simmat-plugin-y", good("y"), entry="two"), SIMMAT_PLUGINS=wanted
    )
    assert "x" in registry.names("modality")
    assert "y" not in registry.names("modality")


def test_strict_mode_raises_the_first_failure(install: Install) -> None:
    """In CI a plugin that fails must fail the build."""
    folder = install("simmat-plugin-bad", "raise RuntimeError('no licence file')")
    with pytest.raises(
        PluginError,
        match=r"'simmat_plugin_bad' .*simmat-plugin-bad 1\.2 .*no licence file",
    ):
        load(folder, SIMMAT_STRICT_PLUGINS="1")
    assert report(load(folder, SIMMAT_STRICT_PLUGINS="0"), "simmat_plugin_bad").error


def test_ctrl_c_during_loading_is_not_swallowed(install: Install) -> None:
    """A user who interrupts means the program, not the plugin."""
    folder = install("simmat-plugin-bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(folder)


def test_names_joined_by_plus_are_composed(install: Install) -> None:
    """`rgb+thermal` needs no plugin of its own."""
    registry = load(install("simmat-plugin-x", good("x")))
    composed = registry.modality("rgb+x")
    assert isinstance(composed, ComposedModality)
    assert [channel.name for channel in composed.channels] == [
        "red",
        "green",
        "blue",
        "x",
    ]
    with pytest.raises(ConfigError, match=r"rgb\+"):
        registry.modality("rgb+")
    with pytest.raises(UnknownNameError, match="'y'"):
        registry.modality("rgb+y")


def test_an_unknown_name_names_the_nearest() -> None:
    """Most unknown names are slips."""
    with pytest.raises(UnknownNameError, match=r"'rgbb'.*'rgb'"):
        load_plugins([], {}).modality("rgbb")


def test_the_default_model_is_the_smallest_that_is_ready_to_use(tmp_path: Path) -> None:
    """A model with random weights, an untrained decoder or a download is none; with none, the user chooses."""
    weights = WeightFile("w", "0" * 64, size_bytes=9, path=tmp_path / "w")
    packaged = replace(TINY, name="b", promptable=True, weights=weights)
    larger = replace(packaged, name="a", weights=replace(weights, size_bytes=39))
    untrained = replace(packaged, name="c", promptable=False)

    def default(*models: FoundationSpec) -> str:
        return Registry(
            [], [("foundation model", spec, "test") for spec in models]
        ).default_foundation()

    assert default(TINY, untrained, larger, packaged) == "b"
    with pytest.raises(ConfigError, match=r"none of the installed.*tiny"):
        default(TINY, untrained)

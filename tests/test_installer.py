"""`simmat plugins install` and `uninstall`: pip, for names of plugins, in the running environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_envs import make_venv, make_wheel, simmat

from simmat.cli import run
from simmat.errors import ConfigError
from simmat.plugins import installer
from simmat.plugins.installer import distribution_of, requirement_of
from simmat.plugins.registry import PluginReport


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment one may install into."""
    return make_venv(tmp_path_factory.mktemp("env"))


def names(python: Path) -> list[str]:
    """The modalities that a new process finds."""
    done = simmat(python, "modalities", "list", "--json")
    return [modality["name"] for modality in json.loads(done.stdout)]


@pytest.mark.slow
def test_a_wheel_is_installed_shown_and_uninstalled(python: Path, tmp_path: Path) -> None:
    """The whole way, in an environment of its own, without a network."""
    wheel = make_wheel(tmp_path, "simmat-plugin-lidar")
    shown = "simmat-plugin-lidar 1.0: plugin 'lidar'; modalities: lidar"
    for plugin in (str(wheel), "lidar", "simmat-plugin-lidar>=0.1", str(wheel)):  # installed once, there already then
        done = simmat(python, "plugins", "install", plugin)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, shown), done
    assert "lidar" in names(python)
    gone = simmat(python, "plugins", "uninstall", "lidar")
    assert (gone.returncode, gone.stdout.splitlines()[-1]) == (0, "uninstalled simmat-plugin-lidar"), gone.stderr
    assert "lidar" not in names(python)


@pytest.mark.slow
def test_what_pip_refuses_ends_with_1(python: Path) -> None:
    """pip says why, on the same terminal; a script sees it by the exit code."""
    done = simmat(python, "plugins", "install", "nowhere")
    assert done.returncode == 1
    assert "simmat-plugin-nowhere" in done.stderr
    assert "pip install simmat-plugin-nowhere" in done.stderr


@pytest.mark.slow
def test_a_plugin_that_fails_is_installed_and_named(python: Path, tmp_path: Path) -> None:
    """pip was content, but the plugin does not load: that must not look like success."""
    wheel = make_wheel(tmp_path, "simmat-plugin-broken", "raise RuntimeError('no driver')\n")
    done = simmat(python, "plugins", "install", str(wheel))
    assert done.returncode == 1
    assert re.search("'broken' .*RuntimeError: no driver", done.stderr)
    assert simmat(python, "plugins", "uninstall", "simmat-plugin-broken").returncode == 0


@pytest.mark.slow
def test_a_package_without_a_plugin_is_named(python: Path, tmp_path: Path) -> None:
    """The wrong package is easily installed."""
    wheel = make_wheel(tmp_path, "acme-tools", "x = 1\n", plugin=False)
    done = simmat(python, "plugins", "install", str(wheel))
    assert done.returncode == 1
    assert "entry point of group 'simmat'" in done.stderr
    assert str(wheel) in done.stderr


def test_an_environment_without_pip_says_how_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Environments of uv have no pip, nor do slim images."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(installer, "installed_plugins", list)
    assert run(["plugins", "install", "thermal"]) == 1
    said = capsys.readouterr().err
    assert f"uv pip install --python {sys.executable} simmat-plugin-thermal" in said
    assert f"{sys.executable} -m ensurepip" in said


def test_pip_gets_the_options_after_the_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror, a proxy or --upgrade is pip's business, in pip's own words."""
    lines: list[list[str]] = []
    monkeypatch.setattr(installer, "installed_plugins", list)
    monkeypatch.setattr(
        subprocess, "run", lambda line, check: lines.append(line) or subprocess.CompletedProcess(line, 0)
    )
    run(["plugins", "install", "thermal", "acme-sonar==1", "--", "--upgrade", "--index-url", "https://mirror"])
    assert lines[0][3:5] == ["pip", "--disable-pip-version-check"]
    assert lines[0][5:] == [
        *("install", "--upgrade", "--index-url", "https://mirror"),
        *("simmat-plugin-thermal", "acme-sonar==1"),
    ]


@pytest.mark.parametrize(
    ("argument", "requirement"),
    [
        ("thermal", "simmat-plugin-thermal"),
        ("hha", "simmat-plugin-depth"),
        ("depth[exr]", "simmat-plugin-depth[exr]"),
        ("depth==0.1", "simmat-plugin-depth==0.1"),
        ("sonar", "simmat-plugin-sonar"),
        ("simmat-plugin-sonar", "simmat-plugin-sonar"),
        ("acme-sonar==1.2", "acme-sonar==1.2"),
        ("acme-sonar[fast]", "acme-sonar[fast]"),
        ("git+https://acme.com/sonar", "git+https://acme.com/sonar"),
    ],
)
def test_a_short_name_means_a_plugin_and_no_other_package(argument: str, requirement: str) -> None:
    """`pip install sonar` would fetch whatever has that name."""
    assert requirement_of(argument) == requirement


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_relative_path_stays_a_path(here: Path) -> None:
    """Without its "./", pip would look for a package of the folder's name."""
    (here / "sonar").mkdir()
    (here / "sonar/pyproject.toml").touch()
    assert requirement_of("./sonar") == str(here / "sonar")


def test_a_name_cannot_be_editable(capsys: pytest.CaptureFixture[str]) -> None:
    """pip's answer is a list of version control systems; the user forgot the "./"."""
    assert run(["plugins", "install", "--editable", "sonar"]) == 2
    said = capsys.readouterr().err
    assert "--editable" in said
    assert "got 'simmat-plugin-sonar'" in said
    assert "./" in said


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("./none", "none: no such"),
        ("./empty", "empty: .*pyproject.toml"),
        ("./notes.txt", "notes.txt: .*pyproject.toml.*.whl"),
        ("no such", "'no such'"),
        ("==1", "'==1'"),
        ("a;b", "'a;b'"),
        ("--pre", "'--pre'.*after --"),
        (" ", "'' is"),
    ],
)
def test_what_cannot_be_installed_is_refused_before_pip(here: Path, argument: str, said: str) -> None:
    """pip's word for a missing folder is less clear."""
    (here / "empty").mkdir()
    (here / "notes.txt").touch()
    with pytest.raises(ConfigError, match=said):
        requirement_of(argument)


REPORTS = (
    PluginReport("builtin", "simmat", "0.1", gives={"modality": ("rgb",)}),
    PluginReport("sonar", "acme-sonar", "1.0", gives={"modality": ("sonar", "sonar-db")}),
    PluginReport("depth", "simmat-plugin-depth", "1.0", gives={"modality": ("hha",)}),
    PluginReport("gone", "", "", error="not installed"),
)


@pytest.mark.parametrize(
    ("argument", "distribution"),
    [
        ("sonar", "acme-sonar"),
        ("acme_sonar", "acme-sonar"),
        ("sonar-db", "acme-sonar"),
        ("depth", "simmat-plugin-depth"),
        ("hha", "simmat-plugin-depth"),
    ],
)
def test_a_plugin_is_uninstalled_by_any_of_its_names(argument: str, distribution: str) -> None:
    """One remembers the sensor, not the package."""
    assert distribution_of(argument, REPORTS) == distribution


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("rgb", "'rgb' .*part of SimMAT"),
        ("sonr", "'sonr' .*'sonar'"),
        ("numpy", "'numpy' .*depth, sonar"),
    ],
)
def test_nothing_but_a_plugin_is_uninstalled(argument: str, said: str) -> None:
    """pip would take numpy away without a word."""
    with pytest.raises(ConfigError, match=said):
        distribution_of(argument, REPORTS)


def test_uninstalling_an_unknown_name_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the keyboard, before pip is asked."""
    assert run(["plugins", "uninstall", "nowhere"]) == 2
    assert "'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["", "hello\n{}", "[" * 100_000])
def test_an_answer_that_is_not_json_is_one_error(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin may print where the list is read from."""
    monkeypatch.setattr(subprocess, "run", lambda *args, **named: subprocess.CompletedProcess([], 0, said, ""))
    with pytest.raises(installer.InstallerError, match="plugins list --json"):
        installer.installed_plugins()

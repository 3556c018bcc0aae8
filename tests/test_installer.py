"""`simmat plugins install` and `uninstall`: into the running environment, or a word on who keeps it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from throwaway import make_venv, make_wheel, simmat

from simmat import installer
from simmat.cli import run
from simmat.errors import ConfigError
from simmat.installer import Environment, distribution_of, name_in, requirement_of
from simmat.registry import PluginReport


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
    done = simmat(python, "plugins", "install", str(wheel))
    assert (done.returncode, done.stdout) == (0, "simmat-plugin-lidar 1.0: plugin 'lidar'; modalities: lidar\n"), done
    assert "lidar" in names(python)
    again = simmat(python, "plugins", "install", "lidar")
    assert again.returncode == 0
    assert "simmat-plugin-lidar is already installed" in again.stdout
    assert "plugin 'lidar'; modalities: lidar" in again.stdout
    for other in ("simmat-plugin-lidar>=0.1", str(wheel)):
        there = simmat(python, "plugins", "install", other)
        assert (there.returncode, there.stdout.splitlines()[1:]) == (0, again.stdout.splitlines()[1:]), there.stderr
    gone = simmat(python, "plugins", "uninstall", "lidar")
    assert (gone.returncode, gone.stdout) == (0, "uninstalled simmat-plugin-lidar\n"), gone.stderr
    assert "lidar" not in names(python)


@pytest.mark.slow
def test_what_pip_refuses_is_said_shortly_with_1(python: Path) -> None:
    """pip's own answer is a page; the reason is a line of it."""
    done = simmat(python, "plugins", "install", "nowhere")
    assert done.returncode == 1
    assert "error: pip could not install simmat-plugin-nowhere: " in done.stderr
    assert "No matching distribution found for simmat-plugin-nowhere" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert done.stdout == ""


@pytest.mark.slow
def test_a_plugin_that_fails_is_installed_and_named(python: Path, tmp_path: Path) -> None:
    """pip was content, but the plugin does not load: that must not look like success."""
    wheel = make_wheel(tmp_path, "simmat-plugin-broken", "raise RuntimeError('no driver')\n")
    done = simmat(python, "plugins", "install", str(wheel))
    assert done.returncode == 1
    assert "plugin 'broken' is installed but failed: RuntimeError: no driver" in done.stderr
    assert simmat(python, "plugins", "uninstall", "simmat-plugin-broken").returncode == 0


@pytest.mark.slow
def test_a_package_without_a_plugin_is_named(python: Path, tmp_path: Path) -> None:
    """The wrong package is easily installed."""
    wheel = make_wheel(tmp_path, "acme-tools", "x = 1\n", plugin=False)
    done = simmat(python, "plugins", "install", str(wheel))
    assert done.returncode == 1
    assert "acme-tools 1.0 brings no plugin of SimMAT" in done.stderr


@pytest.mark.slow
def test_an_environment_of_uv_is_left_to_uv(tmp_path: Path) -> None:
    """uv makes environments without pip; an obscure failure would be the other answer."""
    python = make_venv(tmp_path / "env")
    with (tmp_path / "env/pyvenv.cfg").open("a") as file:
        file.write("uv = 0.9.1\n")
    done = simmat(python, "plugins", "install", "thermal")
    assert done.returncode == 2
    assert f"run: uv pip install --python {python} simmat-plugin-thermal" in done.stderr


def environment(prefix: Path, **changes: object) -> Environment:
    """A virtual environment with pip, unless said."""
    values: dict[str, object] = {"virtual": True, "stdlib": prefix / "lib", "has_pip": True}
    return Environment("/env/bin/python", prefix, **{**values, **changes})  # type: ignore[arg-type]


def test_a_plain_environment_takes_plugins(tmp_path: Path) -> None:
    """The usual case: nobody else keeps it."""
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    assert environment(tmp_path).instead("x") == ""


@pytest.mark.parametrize(
    ("files", "install", "remove"),
    [
        (
            {"pipx_metadata.json": "{}"},
            "pipx inject simmat './my plugin'",
            "pipx uninject simmat './my plugin'",
        ),
        (
            {"uv-receipt.toml": "", "pyvenv.cfg": "uv = 0.9\n"},
            "uv tool install simmat --with './my plugin'",
            "uv tool install simmat (with a --with for every plugin that stays)",
        ),
        (
            {"pyvenv.cfg": "home = /usr/bin\nuv = 0.9\n"},
            "uv pip install --python /env/bin/python './my plugin'",
            "uv pip uninstall --python /env/bin/python './my plugin'",
        ),
        (
            {"pyvenv.cfg": "uv = 0.9\n", "../uv.lock": ""},
            "uv add './my plugin'",
            "uv remove './my plugin'",
        ),
    ],
)
def test_who_keeps_an_environment_is_told_with_the_right_command(
    files: dict[str, str], install: str, remove: str, tmp_path: Path
) -> None:
    """Whoever made it must know what is in it, or the next update throws the plugin out."""
    prefix = tmp_path / "simmat"
    prefix.mkdir()
    for name, text in files.items():
        (prefix / name).write_text(text)
    said = environment(prefix).instead("./my plugin")
    assert said.partition("; run: ")[2].startswith(install)
    assert environment(prefix).instead("./my plugin", remove=True).partition("; run: ")[2].startswith(remove)
    assert str(prefix) in said


def test_a_python_of_the_system_is_left_alone(tmp_path: Path) -> None:
    """PEP 668: pip would refuse with a page of text."""
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    said = environment(tmp_path, virtual=False, stdlib=tmp_path).instead("x")
    assert "the system keeps this Python" in said
    assert "python3 -m venv DIR" in said
    assert environment(tmp_path, stdlib=tmp_path).instead("x") == ""


def test_an_environment_without_pip_says_how_to_get_it(tmp_path: Path) -> None:
    """`python -m venv --without-pip` and slim images."""
    assert environment(tmp_path, has_pip=False).instead("x").endswith("run: /env/bin/python -m ensurepip")


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
    ],
)
def test_a_short_name_means_a_plugin_and_never_a_strangers_package(argument: str, requirement: str) -> None:
    """`pip install sonar` would fetch whatever has that name."""
    assert requirement_of(argument) == requirement


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("simmat-plugin-thermal>=0.1", "simmat-plugin-thermal"),
        ("Acme_Sonar[fast]==1.2", "acme-sonar"),
        ("/a/acme_sonar-1.2-py3-none-any.whl", "acme-sonar"),
        ("/a/folder", ""),
        ("/a/renamed.whl", ""),
    ],
)
def test_a_package_that_is_there_already_is_found_by_what_was_asked_for(requirement: str, name: str) -> None:
    """pip reports nothing where there is nothing to do, and a version is not a part of the name."""
    assert name_in(requirement) == name


def test_a_name_is_taken_as_it_is_where_asked() -> None:
    """Plugins may be called anything."""
    assert requirement_of("acme-sonar", as_it_is=True) == "acme-sonar"


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
    assert "--editable takes a folder with a pyproject.toml, got 'sonar'; write ./sonar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("./none", "none: no such file or folder"),
        ("./empty", "empty: no package, it has no pyproject.toml"),
        ("./notes.txt", "notes.txt: no package; it is a folder with pyproject.toml, or a file .whl"),
        ("no such", "'no such' is no name of a plugin or package"),
        ("==1", "'==1' is no name of a plugin or package"),
        ("a;b", "'a;b' is no name of a plugin or package"),
        ("--pre", "a plugin's name, package or path is needed"),
        (" ", "a plugin's name, package or path is needed"),
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
        ("rgb", "'rgb' is a part of SimMAT itself"),
        ("sonr", "no plugin 'sonr' is installed; did you mean 'sonar'?"),
        ("numpy", r"no plugin 'numpy' is installed\. Installed: depth, sonar"),
    ],
)
def test_nothing_but_a_plugin_is_uninstalled(argument: str, said: str) -> None:
    """pip would take numpy away without a word."""
    with pytest.raises(ConfigError, match=said):
        distribution_of(argument, REPORTS)


def test_uninstalling_a_name_nobody_has_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the keyboard, before pip is asked."""
    assert run(["plugins", "uninstall", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: no plugin 'nowhere' is installed")


@pytest.mark.parametrize("said", ["", "hello\n{}", "[" * 100_000])
def test_an_answer_that_is_no_json_is_one_error(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin may print where the list is read from."""
    done = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr(installer, "_run", lambda line: done)
    with pytest.raises(installer.InstallerError, match="plugins list --json gives no valid json"):
        installer.installed_plugins()

"""`simmat plugins install` and `uninstall`: pip, for names of plugins, in the running environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from virtual_envs import make_venv, make_wheel, simmat

from simmat.cli import run
from simmat.cli.plugins import package_of


@pytest.mark.slow
def test_a_plugin_is_installed_listed_and_uninstalled(tmp_path: Path) -> None:
    """The whole way, in an environment of its own, without a network; a broken plugin is shown with its cause."""
    python = make_venv(tmp_path / "env")

    def names() -> list[str]:
        return [modality["name"] for modality in json.loads(simmat(python, "modalities", "list", "--json").stdout)]

    wheel = make_wheel(tmp_path, "simmat-plugin-lidar")
    for plugin in (str(wheel), "lidar"):  # installed, then there already
        done = simmat(python, "plugins", "install", plugin)
        assert done.returncode == 0, done.stderr
        assert "simmat-plugin-lidar" in done.stdout
    assert "lidar" in names()
    assert simmat(python, "plugins", "uninstall", "lidar").returncode == 0
    assert "lidar" not in names()
    wheel = make_wheel(tmp_path, "simmat-plugin-broken", "raise RuntimeError('no driver')\n")
    broken = simmat(python, "plugins", "install", str(wheel))
    assert "RuntimeError: no driver" in broken.stdout
    missing = simmat(python, "plugins", "install", "nowhere")
    assert missing.returncode == 1
    assert "simmat-plugin-nowhere" in missing.stderr


def test_an_environment_without_pip_says_how_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Environments of uv have no pip, nor do slim images."""
    monkeypatch.setattr("importlib.metadata.distributions", lambda **names: iter(()))
    assert run(["plugins", "install", "thermal"]) == 2
    said = capsys.readouterr().err
    assert f"uv pip install simmat-plugin-thermal --python {sys.executable}" in said
    assert f"{sys.executable} -m ensurepip" in said


def test_pip_gets_packages_paths_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror, a proxy or --upgrade is pip's business, in pip's own words."""
    lines: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda line, check: lines.append(line) or subprocess.CompletedProcess(line, 0)
    )
    run("plugins install --editable ./sonar thermal acme-sonar==1 -- --index-url mirror".split())
    assert lines[0][3:5] == ["pip", "--disable-pip-version-check"]
    assert lines[0][5:] == "install --editable ./sonar simmat-plugin-thermal acme-sonar==1 --index-url mirror".split()


@pytest.mark.parametrize(
    ("argument", "package"),
    [
        ("thermal", "simmat-plugin-thermal"),
        ("depth[exr]", "simmat-plugin-depth[exr]"),
        ("simmat-plugin-sonar", "simmat-plugin-sonar"),
        ("acme-sonar==1.2", "acme-sonar==1.2"),
        ("./sonar", "./sonar"),
        ("sonar-1.0-py3-none-any.whl", "sonar-1.0-py3-none-any.whl"),
        ("git+https://acme.com/sonar", "git+https://acme.com/sonar"),
    ],
)
def test_a_plain_name_means_a_plugin_and_no_other_package(argument: str, package: str) -> None:
    """`pip install sonar` would fetch whatever has that name."""
    assert package_of(argument) == package


@pytest.mark.parametrize("name", ["rgb", "simmat", "numpy", "nowhere"])
def test_nothing_but_a_plugin_is_uninstalled(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """pip would take numpy away without a word."""
    assert run(["plugins", "uninstall", name]) == 2
    assert f"{name!r}" in capsys.readouterr().err

"""The contract of a package: each rule fails for one that breaks it, and for no good one."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simmat_testing.checks import run_check
from simmat_testing.find_parts import PACKAGE_CHECKS
from simmat_testing.package_checks import PackageCase
from virtual_envs import ADAPTER

from simmat.errors import UnknownNameError

MODULE = ADAPTER.replace("NAME", "kitsensor")
LAYER = """
from simmat import hookimpl
from simmat.plugin_specs import TransferLayerSpec

def build(**given):
    raise NotImplementedError

@hookimpl
def simmat_transfer_layers():
    return [TransferLayerSpec("kit-layer", "a layer", "simmat_plugin_kit:build")]
"""
METADATA = """Metadata-Version: 2.1
Name: simmat-plugin-kit
Version: 1.2
Summary: a plugin
Requires-Dist: numpy>=1.26
Requires-Dist: simmat>=0.1
"""

Install = Callable[..., PackageCase]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a package on the path with its metadata, as pip would."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def _install(
        package: str = "simmat-plugin-kit",
        module: str = MODULE,
        metadata: str = METADATA,
        entry: str = "kit",
        where: str = "simmat_plugin_kit",
        declared: str = "kitsensor",
    ) -> PackageCase:
        (tmp_path / f"{where}.py").write_text(textwrap.dedent(module), encoding="utf-8")
        info = tmp_path / f"{package.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            metadata.replace("simmat-plugin-kit", package), encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[simmat]\n{entry} = {where}\n[simmat.names]\n{declared} = {where}\n",
            encoding="utf-8",
        )
        return PackageCase.installed(package)

    yield _install
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


BROKEN: dict[str, list[tuple[dict[str, str], str]]] = {
    "loads-without-torch": [
        (
            {"module": "\n    import torch" + MODULE},
            "entry point 'kit' .* torch is imported while loading",
        ),
        ({"module": "import no_such_library"}, "No module named 'no_such_library'"),
    ],
    "hooks-match": [
        (
            {"module": MODULE.replace("simmat_modalities", "simmat_modalites")},
            "did you mean 'simmat_modalities'",
        ),
        (
            {"module": MODULE.replace("[Adapter()]", "[]")},
            "plugin 'kit': it gives nothing",
        ),
    ],
    "references-exist": [
        (
            {"module": LAYER.replace(":build", ":biuld")},
            "build of transfer layer 'kit-layer': .*simmat_plugin_kit:biuld.*AttributeError",
        ),
    ],
    "no-name-collides": [
        (
            {"module": MODULE.replace('"kitsensor"', '"rgb"')},
            "modality 'rgb' is claimed by simmat .* and simmat-plugin-kit",
        ),
    ],
    "names-are-declared": [
        (
            {"declared": "other"},
            r"declares other and gives kitsensor.*\"kitsensor\" = \"simmat_plugin_kit\"",
        ),
    ],
    "metadata-is-complete": [
        ({"metadata": METADATA.replace("Summary: a plugin\n", "")}, "lacks a summary"),
        (
            {"metadata": METADATA.replace("Requires-Dist: simmat>=0.1\n", "")},
            "requires no simmat, installed is",
        ),
        (
            {"metadata": METADATA.replace("simmat>=0.1", "simmat")},
            "requires simmat, installed is simmat",
        ),
        (
            {"metadata": METADATA.replace("simmat>=0.1", "simmat>=99")},
            "requires simmat>=99, installed is simmat",
        ),
        (
            {
                "metadata": METADATA.replace(
                    "simmat>=0.1", 'simmat>=0.1; extra == "dev"'
                )
            },
            "requires no simmat, installed is",
        ),
    ],
}
"""Check -> what is wrong with the package, and what the failure must say."""
CASES = [
    (name, changes, said)
    for name, packages in BROKEN.items()
    for changes, said in packages
]


def test_every_check_has_a_package_that_breaks_it() -> None:
    """A check that nothing fails may check nothing."""
    assert set(BROKEN) == set(PACKAGE_CHECKS)


@pytest.mark.parametrize("name", PACKAGE_CHECKS)
def test_a_good_package_passes(name: str, install: Install) -> None:
    """A check that fails good packages is worse than none."""
    result = run_check(PACKAGE_CHECKS[name], install())
    assert (result.status, result.why) == ("ok", "")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    CASES,
    ids=[f"{n}-{i}" for i, (n, *_) in enumerate(CASES)],
)
def test_a_broken_package_fails_its_check_and_is_given_the_reason(
    name: str, changes: dict[str, str], said: str, install: Install
) -> None:
    """The author reads this message and nothing else."""
    result = run_check(PACKAGE_CHECKS[name], install(**changes))
    assert result.status == "failed"
    assert re.search(said, result.why), result.why
    assert result.advice


def test_two_packages_with_one_entry_point_name_collide(install: Install) -> None:
    """Python would load one of them without a word."""
    install(
        "simmat-plugin-other",
        MODULE.replace('"kitsensor"', '"another"'),
        where="other_kit",
    )
    result = run_check(PACKAGE_CHECKS["no-name-collides"], install())
    assert "simmat-plugin-other" in result.found


def test_a_package_that_is_not_installed_is_refused_with_the_nearest() -> None:
    """A typing error must not look like a package without faults."""
    have = {
        entry.dist.name
        for entry in importlib.metadata.entry_points(group="simmat")
        if entry.dist
    }
    with pytest.raises(UnknownNameError, match=r"'simmt'.*'simmat'"):
        PackageCase.installed("simmt")
    assert "simmt" not in have

"""What is left of simulation where simmat-plugin-scenes is not installed: a message that names it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from installed import need_plugins
from simmat_testing import MODALITY_CHECKS, ModalityCase, run_checks
from simmat_testing.modality_case import numbered_scene

from simmat.errors import ConfigError
from simmat.plugins.loader import load_plugins
from simmat.sensors.simulated_scene import import_scenes

PACKAGE = "simmat_plugin_scenes"


class NotThere:
    """Finds no package of that name, wherever it lies."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == PACKAGE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def _without_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the package be missing; what has been imported of it or with it is imported anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE or name.endswith(".camera")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotThere(), *sys.meta_path])
    numbered_scene.cache_clear()


@pytest.mark.usefixtures("_without_scenes")
def test_the_package_that_is_missing_is_named() -> None:
    """A traceback of an import does not say what to install."""
    with pytest.raises(ConfigError, match="pip install simmat-plugin-scenes"):
        import_scenes("generate")


def test_another_missing_module_is_not_taken_for_the_package() -> None:
    """Advice to install what is there would help nobody."""
    need_plugins("scenes")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_the_kind"):
        import_scenes("nothing_of_the_kind")


@pytest.mark.parametrize("modality", ["rgb", "gray", "nir", "multispectral", "polarization"])
def test_a_sensor_needs_the_package_to_simulate_alone(
    modality: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It loads and trains without; a scene of somebody else's is answered with what to install."""
    need_plugins("scenes", *({modality} - {"rgb", "gray"}))
    scene = numbered_scene(0)
    request.getfixturevalue("_without_scenes")
    adapter = load_plugins().modality(modality)
    with pytest.raises(ConfigError, match="pip install simmat-plugin-scenes"):
        adapter.simulate(scene, np.random.default_rng(0))


@pytest.mark.usefixtures("_without_scenes")
def test_the_checks_are_skipped_with_what_to_do(tmp_path: Path) -> None:
    """An author without the package can give a file of the sensor, or install it."""
    results = list(run_checks(MODALITY_CHECKS.values(), ModalityCase(load_plugins([], {}).modality("gray"), tmp_path)))
    assert {result.status for result in results} == {"ok", "skipped"}
    told = [result.found for result in results if "simmat-plugin-scenes" in result.found]
    assert any("--source gray=FILE" in found for found in told)

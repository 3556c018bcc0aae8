"""Settings of every test run, the core's and the plugins', and fixtures of several files."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

# Set before torch is imported: tests run side by side, and one thread each is faster and repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Pictures are written to files; no test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")
# A plugin list of the developer's own must not change what is tested.
for name in ("SIMMAT_PLUGINS", "SIMMAT_STRICT_PLUGINS", "SIMMAT_DEBUG"):
    os.environ.pop(name, None)

NEEDED = {
    "tests/packages/test_fuzz.py": (
        "simmat_plugin_bench",
        "simmat_plugin_polarization",
        "simmat_plugin_report",
        "simmat_plugin_sam",
    ),
    "tests/packages/test_kill.py": ("simmat_plugin_bench", "simmat_plugin_report"),
}
"""Tests of several packages at once -> the modules that they import."""
collect_ignore = [
    tests for tests, modules in NEEDED.items() if not all(map(find_spec, modules))
]


@pytest.fixture(autouse=True)
def _plugins_of_the_mark(request: pytest.FixtureRequest) -> None:
    """Start only the plugins that `pytest.mark.plugins(…)` names, which the test needs, and that of `tiny`."""
    from installed import need_plugins

    mark = request.node.get_closest_marker("plugins")
    if mark is not None:
        need_plugins(*(name.removeprefix("simmat-plugin-") for name in mark.args))
        request.getfixturevalue("monkeypatch").setenv(
            "SIMMAT_PLUGINS", ",".join(["testing", *mark.args])
        )


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny random model; no test changes it."""
    from bundles import tiny_bundle

    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def dense_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both heads and an input of 32 pixels a side, after two steps; no test changes it."""
    from runs import config, gray_set, registry

    from simmat import training

    folder = tmp_path_factory.mktemp("dense")
    settings = config(
        gray_set(folder / "set"),
        folder / "run",
        heads="prompt,dense",
        steps=2,
        pictures=False,
        image_size=32,
        crop=0,
    )
    return training.train(settings, registry())


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of grey images; no test changes it."""
    from runs import gray_set

    return gray_set(tmp_path_factory.mktemp("data") / "set")

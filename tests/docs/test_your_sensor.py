"""docs/your-sensor.md, followed to the letter; and the sensor it builds, on real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import linked
from installed import SHARED_DATA, need_plugins
from simmat_plugin_scenes.generate import generate_scene
from virtual_envs import clean_environment, make_venv, run_in, simmat

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "simmat-plugin-sonar"
SONAR = SHARED_DATA / "sonar-objects"
PAGE = (ROOT / "docs" / "your-sensor.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
FILES = [text.partition("\n") for language, text in BLOCKS if language == "python"]


def test_the_page_builds_the_example() -> None:
    """Two texts of one sensor would drift apart."""
    built = {name.removeprefix("# "): text for name, _, text in FILES}
    assert built.keys() == {
        "src/simmat_plugin_sonar/__init__.py",
        "tests/test_simmat_plugin_sonar.py",
    }
    for name, text in built.items():
        assert text == (EXAMPLE / name).read_text(encoding="utf-8")


def test_the_example_uses_public_names_alone() -> None:
    """It stands for a stranger's package: what it needs must be open to anybody."""
    for file in EXAMPLE.rglob("*.py"):
        modules = re.findall(
            r"^from (simmat[\w.]*) import",
            file.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
        assert modules
        assert not [
            module
            for module in modules
            if any(part.startswith("_") for part in module.split("."))
        ]


def test_the_echo_of_a_slanting_plane_falls_with_the_cosine() -> None:
    """Speckle and decibel of the page are those of an amplitude; Lambert's cos² is that of its square."""
    sonar = pytest.importorskip(
        "simmat_plugin_sonar", reason="the example is not installed"
    ).Sonar()
    scene = generate_scene(np.random.default_rng(0), (64, 64))
    means = []
    for cosine in (1.0, 0.5):
        normal = np.zeros_like(scene.surface.normal)
        normal[0], normal[2] = (1 - cosine**2) ** 0.5, -cosine
        plane = replace(
            scene.surface,
            normal=normal,
            depth_m=np.full_like(scene.surface.depth_m, 5.0),
        )
        means.append(
            sonar.simulate(
                replace(scene, surface=plane), np.random.default_rng(1)
            ).data.mean()
        )
    assert means[1] / means[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_every_block_of_the_page_works_in_its_order(tmp_path: Path) -> None:
    """A newcomer's first ten minutes; fewer steps of training, all else as it stands."""
    need_plugins("lite", "report", "scenes")
    python = make_venv(tmp_path / "env")
    folder = tmp_path
    env = {
        **clean_environment(),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    for language, text in BLOCKS:
        if language == "python":
            name, _, content = text.partition("\n")
            (folder / name.removeprefix("# ")).write_text(content, encoding="utf-8")
            continue
        script = text.replace("--steps 40", "--steps 2 --image-size 64").replace(
            "--count 40", "--count 8"
        )
        line = ["bash", "-ec", script + '\npwd > "$HERE"']
        done = subprocess.run(
            line,
            cwd=folder,
            env={**env, "HERE": str(tmp_path / "here")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"{text}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        )
        folder = Path((tmp_path / "here").read_text().strip())
    assert (folder / "run" / "report.html").is_file()
    assert (folder / "masks" / "s00000_overlay.png").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    not SONAR.is_dir(), reason=f"no sonar images at {SONAR}; set SIMMAT_SHARED_DATA"
)
def test_the_example_is_installed_by_path_and_trains_on_real_sonar(
    tmp_path: Path,
) -> None:
    """A stranger's package outside of our tree, from its folder to a mask of a real image."""
    python = make_venv(tmp_path / "env")
    package = tmp_path / "elsewhere" / EXAMPLE.name
    shutil.copytree(
        EXAMPLE,
        package,
        ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"),
    )
    data = linked(SONAR, tmp_path / "data")
    image = sorted((SONAR / "images").iterdir())[0]
    installed = run_in(python, "-m", "pip", "install", str(package))
    assert installed.returncode == 0, installed.stderr
    out = ""
    for words in (
        f"train --modality sonar --data {data} --regions components --min-region 100 --foundation tiny "
        "--steps 2 --batch-size 2 --image-size 64 --device cpu --out run",
        f"eval run/bundle.safetensors --data {data} --split val --json",
        f"predict run/bundle.safetensors {image} --point 500,250 --out out",
    ):
        done = simmat(python, *words.split(), cwd=tmp_path)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        out = done.stdout if words.startswith("eval") else out
    assert json.loads(out)["modality"] == "sonar"
    assert json.loads(out)["tuned"]["objects"] == 15
    assert (tmp_path / "out" / f"{image.stem}_mask.png").is_file()
    assert (
        run_in(python, "-m", "pip", "uninstall", "--yes", package.name).returncode == 0
    )
    lost = simmat(
        python,
        "predict",
        "run",
        str(image),
        "--point",
        "500,250",
        "--out",
        "again",
        cwd=tmp_path,
    )
    assert lost.returncode == 2
    assert "no modality 'sonar'" in lost.stderr

"""A weight file of the right size and other bytes is not trained on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import tiny_bundle
from runs import config, gray_set, registry

from simmat.bundle import load_bundle
from simmat.config import TrainConfig
from simmat.errors import SpecError, WeightsError
from simmat.io.weights import check_digest, fetch
from simmat.plugin_specs import FoundationSpec, WeightFile
from simmat.plugins.registry import Registry
from simmat.training.plan import plan_run

BODY = bytes(range(256))
DAMAGED = bytes([1, *BODY[1:]])
DESCRIBED = WeightFile("w.safetensors", hashlib.sha256(BODY).hexdigest(), len(BODY))


def described(file: WeightFile) -> FoundationSpec:
    """The tiny model, as if it had a weight file."""
    return replace(registry().foundation("tiny"), weights=file)


def packaged(path: Path, body: bytes) -> FoundationSpec:
    """A model whose file lies in a package."""
    path.write_bytes(body)
    return described(replace(DESCRIBED, path=path))


def with_foundation(spec: FoundationSpec) -> Registry:
    """The parts a run needs, with that model."""
    known = registry()
    parts = [
        ("modality", known.modality("gray"), "test"),
        ("foundation model", spec, "test"),
        ("transfer layer", known.transfer_layer("mat-residual"), "test"),
        ("tuner", known.tuner("lora"), "test"),
        ("loss", known.get("loss", "focal"), "test"),
    ]
    return Registry((), parts)


def run_on(root: Path, **changes: object) -> TrainConfig:
    """A run that was never begun."""
    return config(gray_set(root / "data"), root / "run", **changes)


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ({"path": Path("w.safetensors")}, "install the package"),
        ({"url": "http://127.0.0.1:9/w"}, "; run `simmat foundations fetch tiny`"),
        ({"hub": "o/r"}, "; remove it and run `simmat foundations fetch tiny`"),
    ],
)
def test_a_wrong_digest_is_refused_with_what_to_do(
    place: dict[str, object], cure: str
) -> None:
    """Each place has another way to a good file."""
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged") as caught:
        check_digest(
            described(replace(DESCRIBED, **place)), Path("w.safetensors"), "0" * 64
        )
    assert cure in str(caught.value)


def test_a_file_that_its_publisher_may_change_is_taken_as_it_is() -> None:
    """A hub's repository states no digest that lasts."""
    check_digest(
        described(replace(DESCRIBED, sha256="", hub="o/r")),
        Path("w.safetensors"),
        "0" * 64,
    )


def test_a_file_from_a_url_needs_its_digest(tmp_path: Path) -> None:
    """Nothing else tells that what came over the net is what was meant; it is refused before the download."""
    with pytest.raises(SpecError, match=r"'w\.pth' .*sha256"):
        fetch(WeightFile("w.pth", "", url="https://example.org/w.pth"), cache=tmp_path)


def test_a_run_on_damaged_weights_does_not_start(tmp_path: Path) -> None:
    """One flipped bit in a weight may be a network that learns nothing, hours later."""
    spec = packaged(tmp_path / "w.safetensors", DAMAGED)
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged"):
        plan_run(run_on(tmp_path), with_foundation(spec))


def test_a_run_takes_the_file_its_user_gives(tmp_path: Path) -> None:
    """Weights tuned elsewhere have another digest; that is the user's choice."""
    spec = packaged(tmp_path / "w.safetensors", BODY)
    own = tmp_path / "own.safetensors"
    own.write_bytes(DAMAGED)
    found = plan_run(run_on(tmp_path, checkpoint=own), with_foundation(spec))
    assert found.spec.foundation_sha256 == hashlib.sha256(DAMAGED).hexdigest()


def test_a_bundle_on_damaged_weights_says_so(tmp_path: Path) -> None:
    """Told that they are others than it was trained on, one looks for another file and not for the damage."""
    bundle = tiny_bundle(tmp_path / "bundle", foundation_sha256=DESCRIBED.sha256)
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged"):
        load_bundle(
            bundle, with_foundation(packaged(tmp_path / "w.safetensors", DAMAGED))
        )

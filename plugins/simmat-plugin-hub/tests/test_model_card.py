"""The model card: what it says, and that the hub can read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import huggingface_hub as hub
import pytest
from bundles import BUNDLE_SPEC, GRAY
from runs import registry
from simmat_plugin_hub.card import model_card

from simmat.bundle import BundleSpec, Package
from simmat.data.card import DataCard
from simmat.plugin_specs import TunerSpec
from simmat.plugins.kinds import Kind
from simmat.plugins.registry import PluginReport, Registry

PARTS: list[tuple[Kind, str]] = [
    ("modality", "gray"),
    ("foundation model", "tiny"),
    ("transfer layer", "mat"),
]


def changed(**fields: Any) -> BundleSpec:
    """The spec of a bundle with some fields changed."""
    return BUNDLE_SPEC.model_copy(update=fields)


def test_the_hub_reads_its_head() -> None:
    """By it a model is found, and its licence is seen before a download."""
    data = hub.ModelCard(model_card(changed(licence="cc-by-4.0"))).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-4.0",
        "simmat",
        "mask-generation",
    )
    assert data.tags == ["simmat", "image-segmentation", "gray", "tiny"]


def test_it_shows_how_to_predict_with_several_files() -> None:
    """One IMAGE would be refused."""
    assert "simmat predict BUNDLE IMAGE --point" in model_card(BUNDLE_SPEC)
    assert "simmat predict BUNDLE --source NAME=FILE … --point" in model_card(
        changed(modality="rgb+gray")
    )


def pip_lines(card: str) -> list[str]:
    return [line for line in card.splitlines() if line.startswith("pip install")]


def with_tuner(name: str) -> Registry:
    """The built-in parts, and a tuner of the package someones-tuners 2.1."""
    tuner = TunerSpec(name, "a tuner", apply="m:f")
    reports = [
        PluginReport("x", "someones-tuners", "2.1"),
        PluginReport("builtin", "simmat", "0.1.0"),
    ]
    items = [(kind, registry().get(kind, name), "simmat 0.1.0") for kind, name in PARTS]
    return Registry(reports, [*items, ("tuner", tuner, "someones-tuners 2.1")])


def test_the_plugins_that_bring_its_parts_here_are_in_the_command() -> None:
    """Who makes the card has them; who reads it copies the line as it stands."""
    thermal = Package(
        kind="modality",
        name="thermal",
        distribution="simmat-plugin-thermal",
        version="0.1.0",
    )
    tuner = Package(
        kind="tuner", name="theirs", distribution="someones-tuners", version="2.1"
    )
    spec = changed(modality="rgb+thermal", tune="theirs", packages=(tuner, thermal))
    card = model_card(spec, registry=with_tuner("theirs"))
    assert pip_lines(card) == ["pip install simmat someones-tuners"]
    assert "`someones-tuners` brings the tuner `theirs`" in card
    assert (
        "According to the bundle, the package `simmat-plugin-thermal` 0.1.0 brought the sensor `thermal`"
        in card
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [("tuner", "theirs"), ("tuner", "lora"), ("modality", "gray"), ("spell", "gray")],
)
def test_a_package_that_the_file_alone_names_is_in_no_command(
    kind: str, name: str
) -> None:
    """Anybody may register a free name and write it into a bundle; its code would run on the reader's machine."""
    package = Package(
        kind=kind, name=name, distribution="simmat-plugin-evil", version="1.0"
    )
    card = model_card(changed(packages=(package,)), registry=with_tuner("lora"))
    assert pip_lines(card) == ["pip install simmat"]
    line = next(line for line in card.splitlines() if "simmat-plugin-evil" in line)
    assert line.startswith("According to the bundle, the package")
    assert "Nobody has checked that" in line


def test_it_names_no_plugin_that_the_bundle_does_not() -> None:
    """A name that looks like that of a package may be anybody's."""
    assert pip_lines(model_card(changed(modality="rgb+nosuch"))) == [
        "pip install simmat"
    ]


def test_a_licence_that_is_not_stated_is_unknown() -> None:
    """Weights without a licence may not be used, however open the code is."""
    card = model_card(BUNDLE_SPEC)
    assert hub.ModelCard(card).data.license == "unknown"
    assert "licence" in card


def test_it_says_channels_scores_data_and_origin() -> None:
    """One who finds it must know which camera it is for and what to expect."""
    card = model_card(BUNDLE_SPEC)
    for line in (
        "| gray | counts | count |  | 0 to 255 | 60 | 20 |",
        "| mean IoU over objects | 0.512 |",
        "step 30; 8 objects in 4 images",
        "| its weights | random, seed 0 |",
        "| transfer layer | mat (width = 4) |",
        "| source | made up |",
        "| licence | CC0-1.0 |",
        "`tiny`: Apache-2.0",
    ):
        assert line in card
    assert "mean IoU over classes" not in card, "a score that is none is left out"


def test_options_of_the_sensors_are_shown() -> None:
    """Another white reference makes other values of the same file."""
    options = {"nir": {"white_reference": 4095.0, "bits": "12"}, "gray": {}}
    card = model_card(changed(modality="gray+nir", modality_options=options))
    rows = [line for line in card.splitlines() if "options of the sensor" in line]
    assert rows == [
        "| options of the sensor | nir (white_reference = 4095.0, bits = 12) |"
    ]
    assert "options of the sensor" not in model_card(BUNDLE_SPEC)


def test_the_foundation_weights_are_named_in_full() -> None:
    """Twelve digits of a sha256 can be looked up by nobody."""
    assert f"| its weights | sha256 {'ab' * 32} |" in model_card(
        changed(foundation_sha256="ab" * 32)
    )


def test_free_text_stays_text() -> None:
    """A data set's notes come from a stranger and are shown on a web page."""
    notes = "a | b\n# no heading\n<script>x</script> [click](https://x) \x1b]0;x\x07"
    card = model_card(changed(card=DataCard(regions="instances", notes=notes)))
    line = next(line for line in card.splitlines() if line.startswith("| notes"))
    assert (
        line
        == r"| notes | a \| b # no heading &lt;script&gt;x&lt;/script&gt; \[click\](https://x) \x1b\]0;x\x07 |"
    )


def test_a_channel_name_cannot_leave_the_head() -> None:
    """The head is YAML; a name with a colon or a line break would end it."""
    odd = model_card(
        changed(modality="my: sensor\n---+gray", channels=(replace(GRAY, name="a: b"),))
    )
    data = hub.ModelCard(odd).data
    assert data.tags == ["simmat", "image-segmentation", "my-sensor", "gray", "tiny"]
    assert data.license == "unknown"


@pytest.mark.parametrize("metrics", [{}, {"val": None}, {"val": {"miou_object": "x"}}])
def test_without_scores_it_says_so(metrics: dict[str, object]) -> None:
    """An empty table would look like a fault."""
    assert "None are stored." in model_card(changed(metrics=metrics))

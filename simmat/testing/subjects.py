"""The lists of checks, and which of them apply to a name: that of a sensor, another part, or a package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from simmat.errors import ConfigError, SimMATError, UnknownNameError, did_you_mean
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.registry import Kind, Registry
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.options import is_sensor_file
from simmat.testing import foundation_answers as answers
from simmat.testing import (
    foundation_spec,
    modality_files,
    modality_network,
    modality_spec,
    modality_values,
    package,
    parts,
)
from simmat.testing.checks import Check, Result, run_checks
from simmat.testing.foundation_spec import FoundationCase
from simmat.testing.package import PackageCase, installed_packages
from simmat.testing.parts import TransferLayerCase, TunerCase
from simmat.testing.samples import ModalityCase

MODALITY_CHECKS: tuple[Check[ModalityCase], ...] = (
    Check(modality_spec.spec_round_trips),
    Check(modality_spec.options_are_described),
    Check(modality_spec.wavelengths_plausible),
    Check(modality_files.simulation_is_seeded),
    Check(modality_files.loads_what_it_declares),
    Check(modality_spec.unit_fits_quantity),
    Check(modality_files.same_file_same_bits),
    Check(modality_files.windows_are_parts),
    Check(modality_files.bad_files_are_refused),
    Check(modality_values.what_is_saved_is_loaded),
    Check(modality_values.missing_stays_missing),
    Check(modality_values.flips_and_turns_move_pixels),
    Check(modality_values.images_are_not_written_into),
    Check(modality_network.loads_in_a_worker),
    Check(modality_network.normalized_samples_are_scaled),
    Check(modality_network.two_training_steps),
)
"""The checks of a sensor, in the order in which they run."""

FOUNDATION_CHECKS: tuple[Check[FoundationCase], ...] = (
    Check(foundation_spec.spec_readable_without_torch),
    Check(foundation_spec.pixel_statistics_are_counts),
    Check(foundation_spec.wrong_input_size_is_refused),
    Check(foundation_spec.tuning_targets_match),
    Check(answers.levels_have_their_strides),
    Check(answers.masks_cover_the_input),
    Check(answers.same_seed_same_answers),
    Check(answers.batch_of_two_equals_two_singles),
    Check(answers.prompts_decide_the_answer),
    Check(answers.state_survives_safetensors),
    Check(answers.weights_are_the_ones_described),
    Check(answers.lora_changes_nothing_at_step_0),
    Check(answers.gradient_reaches_the_mat),
    Check(answers.what_trains_has_a_gradient),
)
"""The checks of a foundation model."""

TRANSFER_LAYER_CHECKS: tuple[Check[TransferLayerCase], ...] = (
    Check(parts.layer_gives_its_output),
    Check(parts.layer_is_seeded),
    Check(parts.layer_trains_with_a_gradient),
    Check(parts.layer_survives_safetensors),
)
"""The checks of a transfer layer."""

TUNER_CHECKS: tuple[Check[TunerCase], ...] = (
    Check(parts.tuner_leaves_the_model_as_it_was),
    Check(parts.tuner_is_seeded),
    Check(parts.tuner_trains_with_a_gradient),
)
"""The checks of a tuner."""

COMMAND_CHECKS: tuple[Check[click.Command], ...] = (Check(parts.command_shows_its_help),)
"""The checks of a command."""

PACKAGE_CHECKS: tuple[Check[PackageCase], ...] = (
    Check(package.loads_without_torch),
    Check(package.hooks_match),
    Check(package.references_exist),
    Check(package.no_name_collides),
    Check(package.distribution_is_named),
    Check(package.simmat_range_is_stated),
)
"""The checks of a package."""


@dataclass(frozen=True)
class Subject:
    """One thing that is checked.

    Attributes:
        run: takes a scratch folder, yields the results one by one.
        note: what is not checked with it, and how to check that.
    """

    kind: str
    name: str
    run: Callable[[Path], Iterator[Result]]
    note: str = ""


def find_subjects(
    name: str,
    registry: Registry,
    *,
    full: bool = False,
    files: Mapping[str, Path] | None = None,
    image_size: int | None = None,
) -> list[Subject]:
    """Return what a name stands for.

    A part is preferred to a plugin of the same name; the name of a distribution is the package and all its parts.

    Args:
        name: name of a modality (also `rgb+thermal`, or a sensor.toml), foundation model, transfer layer, tuner,
            command, distribution or plugin.
        files: the files of one sample, source name -> file, for a sensor that does not simulate its own.
        image_size: side of the input of foundation models, in pixels.

    Raises:
        UnknownNameError: the name is unknown; the nearest name is named.
        SimMATError: what it names is not usable, as a name that two packages claim.
    """
    found: list[Subject] = []
    claimed = registry.conflicts()  # registry.modality and foundation raise an error that names both packages
    if any(
        part in registry.names("modality") or is_sensor_file(part) or ("modality", part) in claimed
        for part in name.split("+")
    ):
        if image_size is not None:
            raise ConfigError(f"--image-size is for foundation models, and {name!r} is a sensor; leave it out")
        adapter = registry.modality(name)
        if files and set(files) != set(adapter.source_names()):
            raise ConfigError(
                f"{adapter.name!r} has the sources {', '.join(adapter.source_names())}, got files of "
                f"{', '.join(files)}; give one file for each: --source NAME=FILE"
            )
        found.append(_modality(adapter, [files] if files else None))
    elif files:
        raise ConfigError(f"sample files (--source) are for a sensor, and {name!r} is not one; leave them out")
    family, slash, _ = name.partition("/")
    if (
        name in registry.names("foundation model")
        or (slash and family in registry.names("foundation family"))
        or ("foundation model", name) in claimed
    ):
        found.append(_foundation(registry.foundation(name, fetch=True), full, image_size))
    found += [subject for kind in _OTHERS if name in registry.names(kind) for subject in [_other(kind, name, registry)]]
    return found or _package(name, registry, full, image_size)


def _modality(adapter: ModalityAdapter, samples: Sequence[Mapping[str, Path]] | None = None) -> Subject:
    def run(folder: Path) -> Iterator[Result]:
        return run_checks(MODALITY_CHECKS, ModalityCase(adapter, folder, samples))

    return Subject("modality", adapter.name, run)


def _foundation(spec: FoundationSpec, full: bool, image_size: int | None) -> Subject:
    if image_size is not None and spec.size_multiple > 0:
        spec.check_image_size(image_size)

    def run(folder: Path) -> Iterator[Result]:
        return run_checks(FOUNDATION_CHECKS, FoundationCase(spec, folder, image_size=image_size, full=full))

    return Subject("foundation model", spec.name, run)


_OTHERS: tuple[Kind, ...] = ("transfer layer", "tuner", "command")


def _other(kind: Kind, name: str, registry: Registry) -> Subject:
    """Return a transfer layer, tuner or command."""

    def run(folder: Path) -> Iterator[Result]:
        if kind == "transfer layer":
            return run_checks(TRANSFER_LAYER_CHECKS, TransferLayerCase(registry.transfer_layer(name), folder))
        if kind == "tuner":
            return run_checks(TUNER_CHECKS, TunerCase(registry.tuner(name)))
        return run_checks(COMMAND_CHECKS, registry.command(name))

    return Subject(kind, name, run)


def _package(name: str, registry: Registry, full: bool, image_size: int | None) -> list[Subject]:
    """Return a package, by its name or by that of one of its plugins, and all its items."""
    packages = installed_packages()
    of_plugin = (case for case in packages.values() if any(entry.name == name for entry in case.entry_points))
    case = packages.get(name) or next(of_plugin, None)
    if case is None:
        raise _unknown(name, registry, packages)

    def own(kind: Kind) -> list[str]:
        return [each for each in registry.names(kind) if registry.owner(kind, each).partition(" ")[0] == case.name]

    families = own("foundation family")
    note = "; ".join(f"models of the family {each} are checked one by one, as {each}/NAME" for each in families)
    return [
        Subject("package", case.name, lambda folder: run_checks(PACKAGE_CHECKS, case), note),
        *(_modality(registry.modality(each)) for each in own("modality")),
        *(_foundation(registry.foundation(each), full, image_size) for each in own("foundation model")),
        *(_other(kind, each, registry) for kind in _OTHERS for each in own(kind)),
    ]


def _unknown(name: str, registry: Registry, packages: Mapping[str, PackageCase]) -> SimMATError:
    families = [f"{family}/NAME" for family in registry.names("foundation family")]
    parts_of = [part for kind in ("modality", "foundation model", *_OTHERS) for part in registry.names(kind)]
    hint = did_you_mean(name, [*parts_of, *families, *packages])
    return UnknownNameError(
        f"no modality, foundation model, transfer layer, tuner, command or plugin {name!r}{hint} "
        "For the names see: simmat modalities list, simmat foundations list, simmat plugins list"
    )

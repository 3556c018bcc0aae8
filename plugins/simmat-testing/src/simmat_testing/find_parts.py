"""The checks of each kind, and which of them apply to a name: that of a sensor, another part, or a package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from simmat.assemble import check_image_size
from simmat.errors import ConfigError, UnknownNameError, did_you_mean
from simmat.plugins.kinds import Kind
from simmat.plugins.registry import Registry
from simmat.sensors.options import is_sensor_file
from simmat_testing import (
    foundation_checks,
    layer_checks,
    modality_checks,
    modality_values,
    package_checks,
    part_checks,
)
from simmat_testing.checks import Check, CheckResult, PartCase, by_id, run_checks
from simmat_testing.foundation_checks import FoundationCase
from simmat_testing.modality_case import ModalityCase

MODALITY_CHECKS = by_id(
    modality_checks.options_are_described,
    modality_checks.wavelengths_plausible,
    modality_checks.simulation_is_seeded,
    modality_checks.loads_what_it_declares,
    modality_checks.unit_fits_quantity,
    modality_checks.same_file_same_bits,
    modality_checks.windows_are_parts,
    modality_checks.bad_files_are_refused,
    modality_values.what_is_saved_is_loaded,
    modality_values.missing_stays_missing,
    modality_values.flips_and_turns_move_pixels,
    modality_values.images_are_not_written_into,
    modality_checks.survives_pickle_and_json,
    modality_checks.normalized_samples_are_scaled,
    modality_checks.training_reaches_every_channel,
)
"""The checks of a sensor by their ids, in the order in which they run, as below."""

FOUNDATION_CHECKS = by_id(
    foundation_checks.pixel_statistics_are_counts,
    foundation_checks.tuning_targets_match,
    foundation_checks.levels_have_their_strides,
    foundation_checks.masks_cover_the_input,
    foundation_checks.same_seed_same_answers,
    foundation_checks.batch_of_two_equals_two_singles,
    foundation_checks.prompts_decide_the_answer,
    foundation_checks.state_survives_safetensors,
    foundation_checks.weights_are_the_ones_described,
    foundation_checks.lora_changes_nothing_at_step_0,
    foundation_checks.what_trains_has_a_gradient,
)
TRANSFER_LAYER_CHECKS = by_id(
    layer_checks.layer_gives_its_output,
    layer_checks.layer_is_seeded,
    layer_checks.layer_trains_with_a_gradient,
    layer_checks.layer_survives_safetensors,
)
TUNER_CHECKS = by_id(
    layer_checks.tuner_leaves_the_model_as_it_was,
    layer_checks.tuner_is_seeded,
    layer_checks.tuner_trains_with_a_gradient,
)
RESULT_FORMAT_CHECKS = by_id(part_checks.format_writes_what_it_declares)
LOSS_CHECKS = by_id(part_checks.loss_reaches_the_network)
METRIC_CHECKS = by_id(
    part_checks.metric_scores_every_result, part_checks.metric_leaves_its_input_alone
)
COMMAND_CHECKS = by_id(package_checks.command_shows_its_help)
PACKAGE_CHECKS = by_id(
    package_checks.loads_without_torch,
    package_checks.hooks_match,
    package_checks.references_exist,
    package_checks.no_name_collides,
    package_checks.names_are_declared,
    package_checks.metadata_is_complete,
)

BY_KIND: dict[Kind, Mapping[str, Check]] = {
    "modality": MODALITY_CHECKS,
    "foundation model": FOUNDATION_CHECKS,
    "transfer layer": TRANSFER_LAYER_CHECKS,
    "tuner": TUNER_CHECKS,
    "result format": RESULT_FORMAT_CHECKS,
    "loss": LOSS_CHECKS,
    "metric": METRIC_CHECKS,
    "command": COMMAND_CHECKS,
}
"""Kind of what can be checked by its name -> its checks."""

Subject: TypeAlias = tuple[str, str, Callable[[Path], Iterator[CheckResult]]]
"""One thing to check: its kind, its name, and the function that checks it in a scratch folder."""


def find_checkable(
    name: str,
    registry: Registry,
    *,
    full: bool = False,
    files: Mapping[str, Path] | None = None,
    image_size: int | None = None,
) -> list[Subject]:
    """Return what a name stands for, with its checks.

    A part is preferred to a plugin of the same name; the name of a distribution is the package and all its parts.

    Args:
        name: name of a modality (also `rgb+thermal`, or a sensor.toml), of a part of another kind, of a distribution
            or of a plugin.
        files: the files of one sample, source name -> file, for a sensor that does not simulate its own.
        image_size: side of the input of foundation models, in pixels.

    Raises:
        UnknownNameError: the name is unknown; the nearest name is named.
        SimMATError: what it names is not usable, as a name that two packages claim.
    """
    known = {kind: set(registry.names(kind)) for kind in BY_KIND}
    for kind, claimed in registry.conflicts():
        if kind in known:
            known[kind].add(claimed)
    kinds = [kind for kind in BY_KIND if name in known[kind]]
    has_sensor = any(
        part in known["modality"] or is_sensor_file(part) for part in name.split("+")
    )
    if has_sensor and "modality" not in kinds:
        kinds.append("modality")
    if name.partition("/")[0] in registry.names("foundation family") and "/" in name:
        kinds.append("foundation model")
    if files and "modality" not in kinds:
        failed = [report for report in registry.reports if report.error]
        said = "".join(f". {one.owner} failed to load: {one.error}" for one in failed)
        raise ConfigError(
            f"sample files (--source) are for a sensor, and {name!r} is not one; leave them out{said}"
        )
    if image_size is not None and kinds and "foundation model" not in kinds:
        raise ConfigError(
            f"--image-size is for foundation models, and {name!r} is not one; leave it out"
        )
    check = partial(
        _subject, registry=registry, full=full, files=files, image_size=image_size
    )
    if kinds:
        return [check(kind, name) for kind in kinds]
    packages = package_checks.simmat_packages()
    case = packages.get(name)
    for other in packages.values():
        if case is None and any(entry.name == name for entry in other.entry_points):
            case = other
    if case is None:
        names = [f"{family}/NAME" for family in registry.names("foundation family")]
        names += packages
        for parts in known.values():
            names += parts
        raise UnknownNameError(
            f"no modality, foundation model or other part, and no plugin, {name!r}"
            f"{did_you_mean(name, names)} "
            "For the names see: simmat modalities list, simmat foundations list, simmat plugins list"
        )
    package = case
    subjects: list[Subject] = [
        ("package", case.name, lambda _: run_checks(PACKAGE_CHECKS.values(), package))
    ]
    for kind in BY_KIND:
        for part in package_checks.names_of(case, kind, registry):
            subjects.append(check(kind, part))
    return subjects


def _subject(
    kind: Kind,
    name: str,
    registry: Registry,
    full: bool,
    files: Mapping[str, Path] | None,
    image_size: int | None,
) -> Subject:
    """Return one part with its checks; raise if it is not usable, or the options do not fit it."""
    case: Callable[[Path], Any]
    if kind == "modality":
        adapter = registry.modality(name)
        if files and set(files) != set(adapter.source_names()):
            raise ConfigError(
                f"{adapter.name!r} has the sources {', '.join(adapter.source_names())}, got files of "
                f"{', '.join(files)}; give one file for each: --source NAME=FILE"
            )
        case = partial(ModalityCase, adapter, samples=[files] if files else None)
    elif kind == "foundation model":
        spec = registry.foundation(name, fetch=True)
        if image_size is not None:
            check_image_size(spec, image_size)
        case = partial(FoundationCase, spec, image_size=image_size, full=full)
    else:
        case = partial(PartCase, registry.get(kind, name))
    checks = BY_KIND[kind].values()
    return kind, name, lambda folder: run_checks(checks, case(folder))

"""The list of all checks, in the order they are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from simmat.testing import (
    foundation_answers,
    foundation_spec,
    foundation_training,
    modality_files,
    modality_missing,
    modality_network,
    modality_saving,
    modality_spec,
    modality_turns,
    package,
)
from simmat.testing import modality_files as modality_damage
from simmat.testing import modality_spec as modality_options
from simmat.testing.checks import Check
from simmat.testing.foundation_spec import FoundationCase
from simmat.testing.package import PackageCase
from simmat.testing.samples import ModalityCase

CaseT = TypeVar("CaseT")


def _checks(*functions: Callable[[CaseT], None], full: bool = False) -> tuple[Check[CaseT], ...]:
    return tuple(Check(function, full) for function in functions)


MODALITY_CHECKS: tuple[Check[ModalityCase], ...] = (
    *_checks(
        modality_spec.spec_round_trips,
        modality_spec.names_unique,
        modality_spec.std_positive,
        modality_spec.wavelengths_plausible,
        modality_options.options_are_described,
        modality_files.simulation_is_seeded,
        modality_files.loads_float32_planes,
        modality_files.loads_its_own_channels,
        modality_saving.what_is_saved_is_loaded,
        modality_spec.unit_fits_quantity,
        modality_files.takes_any_path,
        modality_files.keeps_odd_sizes,
        modality_files.same_file_same_bits,
        modality_files.writes_nothing,
        modality_missing.missing_stays_missing,
        modality_damage.missing_files_are_refused,
        modality_damage.truncated_files_are_refused,
        modality_damage.wrong_files_are_refused,
        modality_turns.flips_and_turns_return,
        modality_turns.flips_and_turns_move_pixels,
        modality_turns.images_are_not_written_into,
        modality_network.loads_in_a_worker,
        modality_network.normalized_samples_are_centred,
        modality_network.normalized_samples_are_scaled,
        modality_network.two_training_steps,
    ),
    *_checks(modality_network.loads_in_a_spawned_worker, full=True),
)
"""What every sensor keeps to."""

FOUNDATION_CHECKS: tuple[Check[FoundationCase], ...] = _checks(
    foundation_spec.spec_readable_without_torch,
    foundation_spec.pixel_statistics_are_counts,
    foundation_spec.wrong_input_size_is_refused,
    foundation_spec.tuning_targets_match,
    foundation_answers.levels_have_their_strides,
    foundation_answers.masks_cover_the_input,
    foundation_answers.same_seed_same_answers,
    foundation_answers.batch_of_two_equals_two_singles,
    foundation_answers.prompts_decide_the_answer,
    foundation_answers.state_survives_safetensors,
    foundation_answers.weights_are_the_ones_described,
    foundation_training.lora_changes_nothing_at_step_0,
    foundation_training.gradient_reaches_the_mat,
    foundation_training.frozen_stays_without_gradient,
    foundation_training.all_that_trains_has_a_gradient,
)
"""What every foundation model keeps to."""

PACKAGE_CHECKS: tuple[Check[PackageCase], ...] = _checks(
    package.loads_without_torch,
    package.hooks_match,
    package.no_name_collides,
    package.distribution_is_named,
    package.simmat_range_is_stated,
)
"""What every package with a plugin keeps to."""

"""Score a model's masks for clicks and boxes against the ground truth, by a named protocol."""

from simmat.evaluation.calibration import (
    Pairs,
    calibrated_pairs,
    calibration_error,
    fit_calibration,
    held_out,
    pairs_of,
    reliability,
    risk_area,
    risk_coverage,
)
from simmat.evaluation.job import (
    MAX_CLICKS,
    evaluate,
    evaluate_bundle,
    nothing_to_score,
    scoring_pipeline,
    trained_card,
    unseen_samples,
    validate,
    why_no_zero_shot,
)
from simmat.evaluation.protocol import COMPAT, FULL, ONE_CLICK, Protocol, find_protocol
from simmat.evaluation.scores import (
    SIZES,
    ObjectScore,
    Scores,
    mean_interval,
    possible_summary,
    seen_note,
)
from simmat.nn.device import Processes, join_processes

__all__ = [
    "COMPAT",
    "FULL",
    "MAX_CLICKS",
    "ONE_CLICK",
    "SIZES",
    "ObjectScore",
    "Pairs",
    "Processes",
    "Protocol",
    "Scores",
    "calibrated_pairs",
    "calibration_error",
    "evaluate",
    "evaluate_bundle",
    "find_protocol",
    "fit_calibration",
    "held_out",
    "join_processes",
    "mean_interval",
    "nothing_to_score",
    "pairs_of",
    "possible_summary",
    "reliability",
    "risk_area",
    "risk_coverage",
    "scoring_pipeline",
    "seen_note",
    "trained_card",
    "unseen_samples",
    "validate",
    "why_no_zero_shot",
]

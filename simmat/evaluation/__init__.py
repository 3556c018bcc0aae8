"""Score a model's masks for clicks and boxes against the ground truth, by a named protocol."""

from simmat.evaluation.job import (
    MAX_CLICKS,
    evaluate,
    evaluate_bundle,
    evaluate_unprompted,
    nothing_to_score,
    scoring_pipeline,
    trained_card,
    unseen_samples,
    validate,
    why_no_zero_shot,
)
from simmat.evaluation.protocol import COMPAT, FULL, ONE_CLICK, Protocol, find_protocol
from simmat.evaluation.scores import (
    NOC_TARGETS,
    SIZES,
    ObjectScore,
    Scores,
    SeenImages,
    bootstrap_means,
    interval_of,
    mean_interval,
    possible_summary,
    seen_note,
)
from simmat.nn.device import Processes, join_processes

__all__ = [
    "COMPAT",
    "FULL",
    "MAX_CLICKS",
    "NOC_TARGETS",
    "ONE_CLICK",
    "SIZES",
    "ObjectScore",
    "Processes",
    "Protocol",
    "Scores",
    "SeenImages",
    "bootstrap_means",
    "evaluate",
    "evaluate_bundle",
    "evaluate_unprompted",
    "find_protocol",
    "interval_of",
    "join_processes",
    "mean_interval",
    "nothing_to_score",
    "possible_summary",
    "scoring_pipeline",
    "seen_note",
    "trained_card",
    "unseen_samples",
    "validate",
    "why_no_zero_shot",
]

"""Score a model's masks for clicks and boxes against the ground truth, by a named protocol."""

from simmat.evaluation.job import (
    Processes,
    evaluate,
    evaluate_bundle,
    join_processes,
    nothing_to_score,
    why_no_zero_shot,
)
from simmat.evaluation.protocol import COMPAT, FULL, ONE_CLICK, PROTOCOLS, Protocol, find_protocol
from simmat.evaluation.scores import (
    NOC_TARGETS,
    SIZES,
    Cost,
    ObjectScore,
    Scores,
    bootstrap_means,
    interval_of,
    merge_scores,
    possible_summary,
)

__all__ = [
    "COMPAT",
    "FULL",
    "NOC_TARGETS",
    "ONE_CLICK",
    "PROTOCOLS",
    "SIZES",
    "Cost",
    "ObjectScore",
    "Processes",
    "Protocol",
    "Scores",
    "bootstrap_means",
    "evaluate",
    "evaluate_bundle",
    "find_protocol",
    "interval_of",
    "join_processes",
    "merge_scores",
    "nothing_to_score",
    "possible_summary",
    "why_no_zero_shot",
]

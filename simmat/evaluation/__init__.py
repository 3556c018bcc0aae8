"""Score a model's masks for clicks and boxes against the ground truth, by a named protocol."""

from simmat.evaluation.prompts import (
    COMPAT,
    FULL,
    ONE_CLICK,
    Protocol,
    find_protocol,
    grid_hw,
)
from simmat.evaluation.scores import (
    SIZES,
    ObjectScore,
    Scores,
    mean_interval,
    seen_note,
)
from simmat.evaluation.scoring import (
    MAX_CLICKS,
    EvalRequest,
    clicks_per_window,
    evaluate,
    evaluate_bundle,
    nothing_to_score,
    scoring_pipeline,
    trained_card,
    unseen_samples,
    validate,
    why_no_zero_shot,
)
from simmat.evaluation.unprompted import ImageMatches

__all__ = [
    "COMPAT",
    "FULL",
    "MAX_CLICKS",
    "ONE_CLICK",
    "SIZES",
    "EvalRequest",
    "ImageMatches",
    "ObjectScore",
    "Protocol",
    "Scores",
    "clicks_per_window",
    "evaluate",
    "evaluate_bundle",
    "find_protocol",
    "grid_hw",
    "mean_interval",
    "nothing_to_score",
    "scoring_pipeline",
    "seen_note",
    "trained_card",
    "unseen_samples",
    "validate",
    "why_no_zero_shot",
]

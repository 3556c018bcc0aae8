"""How far the scores of a model say the truth: the reliability and the risk by coverage of each kind of score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from simmat.calibration import KINDS, Calibration, Kind
from simmat.evaluation import (
    Pairs,
    Scores,
    calibrated_pairs,
    calibration_error,
    held_out,
    pairs_of,
    reliability,
    risk_area,
    risk_coverage,
)
from simmat_plugin_report.documents import Analysis, RunView
from simmat_plugin_report.page import Block, Figure, Table
from simmat_plugin_report.plots import COLOURS, PALETTE, figure_bytes, new_figure, style_axes
from simmat_plugin_report.scores import NONE


def confidence_blocks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield curves and a table of the calibration of each kind of score."""
    confidence = {**Scores(found.scores).confidence(), **pairs_of(found.confidence)}
    calibration = run.spec.calibration
    pairs = {kind: (raw, _calibrated(kind, raw, calibration, run.is_own(found))) for kind, raw in confidence.items()}
    head = ("score of", "number", "ECE before", *(["ECE after"] if calibration else []), "area of the risk")
    yield Table(
        head,
        [
            (
                KINDS[kind],
                f"{raw.weights.sum():,.0f}",
                f"{calibration_error(raw):.3f}",
                *([NONE if after is raw else f"{calibration_error(after):.3f}"] if calibration else []),
                f"{risk_area(raw):.3f}",
            )
            for kind, (raw, after) in pairs.items()
        ],
        1,
    )
    yield Figure(_curves(pairs), "Reliability, and risk by coverage, of each kind of score")
    if calibration is None:
        yield "This bundle has no calibration: its scores are as the network gives them."
    elif run.is_own(found):
        yield (
            "The bundle calibrates its scores by these images. After calibration means here: the scores of each fifth "
            "of the images by what the other four fifths give."
        )


def _calibrated(kind: Kind, raw: Pairs, calibration: Calibration | None, is_own: bool) -> Pairs:
    """Return calibrated scores; on the images that calibrate the bundle, each image by the others."""
    after = calibrated_pairs(calibration, kind, raw)
    return held_out(raw) if is_own and after is not raw else after


def _curves(pairs: Mapping[Kind, tuple[Pairs, Pairs]]) -> bytes:
    figure = new_figure((6.2, 1.75 * len(pairs)))
    axes = figure.subplots(len(pairs), 2, squeeze=False)
    for (left, right), (kind, (raw, after)) in zip(axes, pairs.items(), strict=True):
        left.plot([0, 1], [0, 1], color=COLOURS["faint"], lw=1, ls=(0, (5, 3)))
        shown = [(raw, PALETTE[1], "before"), *([] if after is raw else [(after, PALETTE[0], "after")])]
        for one, colour, label in shown:
            predicted, true, weights = reliability(one)
            area = 6 + 120 * weights / weights.sum()
            left.scatter(predicted, true, area, color=colour, alpha=0.45, lw=0, clip_on=False)
            left.plot(predicted, true, color=colour, lw=1.3, label=label)
        coverage, risk = risk_coverage(raw)
        right.plot(coverage, risk, color=PALETTE[0], lw=1.5)
        left.set(xlim=(0, 1), ylim=(0, 1))
        right.set(xlim=(0, 1), ylim=(0, None))
        left.set_title(KINDS[kind], loc="left", fontsize=9, color=COLOURS["text"])
        right.set_title("risk of the surest", loc="left", fontsize=9, color=COLOURS["text"])
        for part in (left, right):
            style_axes(part)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    axes[-1, 0].set_xlabel("score (vertical: the truth)", fontsize=9, color=COLOURS["faint"])
    axes[-1, 1].set_xlabel("share that is kept (vertical: 1 - truth)", fontsize=9, color=COLOURS["faint"])
    return figure_bytes(figure)

"""The k-click curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.errors import DataError
from simmat.report.curves import plot_click_curve


def svg(path: Path, *ends: float) -> str:
    curves = {name: [end / 2, end] for name, end in zip(("tuned", "zero-shot"), ends, strict=False)}
    return plot_click_curve(curves, path / "c.svg", targets=(0.85,), title="mIoU").read_text()


def test_every_line_is_named_with_its_last_figure(tmp_path: Path) -> None:
    """A legend would have to be matched by colour."""
    text = svg(tmp_path, 0.81234, 0.4)
    assert "tuned 0.812" in text
    assert "zero-shot 0.400" in text


def test_names_of_lines_that_end_together_do_not_overlap(tmp_path: Path) -> None:
    """A tuned model that learned nothing ends where it began."""
    from simmat.report.curves import _spread

    assert _spread([0.8, 0.8, 0.2]) == [pytest.approx(0.8), pytest.approx(0.85), 0.2]


def test_equal_scores_give_equal_files(tmp_path: Path) -> None:
    """Pictures lie beside results under version control."""
    assert svg(tmp_path, 0.8) == svg(tmp_path, 0.8)


@pytest.mark.parametrize(("curves", "name"), [({}, "c.png"), ({"tuned": []}, "c.png"), ({"tuned": [0.5]}, "c.jpg")])
def test_what_cannot_be_drawn_is_refused(curves: dict[str, list[float]], name: str, tmp_path: Path) -> None:
    """And nothing is left behind."""
    with pytest.raises(DataError):
        plot_click_curve(curves, tmp_path / name, title="mIoU")
    assert list(tmp_path.iterdir()) == []

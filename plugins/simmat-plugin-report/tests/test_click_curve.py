"""The k-click curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simmat_plugin_report.plots import plot_click_curve

from simmat.cli import run as simmat
from simmat.errors import DataError


def svg(path: Path, *ends: float) -> str:
    curves = {name: [end / 2, end] for name, end in zip(("tuned", "zero-shot"), ends, strict=False)}
    return plot_click_curve(curves, path / "c.svg", targets=(0.85,), title="mIoU").read_text()


def test_every_line_is_named_with_its_last_figure(tmp_path: Path) -> None:
    """A legend would have to be matched by colour."""
    text = svg(tmp_path, 0.81234, 0.4)
    assert "tuned 0.812" in text
    assert "zero-shot 0.400" in text


@pytest.mark.parametrize(("curves", "name"), [({}, "c.png"), ({"tuned": []}, "c.png"), ({"tuned": [0.5]}, "c.jpg")])
def test_what_cannot_be_drawn_is_refused(curves: dict[str, list[float]], name: str, tmp_path: Path) -> None:
    """And nothing is left behind."""
    with pytest.raises(DataError):
        plot_click_curve(curves, tmp_path / name, title="mIoU")
    assert list(tmp_path.iterdir()) == []


def scored(path: Path, clicks: list[float], zero_shot: list[float] | None) -> Path:
    """A file as `simmat eval --protocol full --out` writes it, with what the curve needs."""
    blocks = {"tuned": clicks, "zero_shot": zero_shot}
    report = {name: one and {"objects": 3, "clicks": {"miou": one}} for name, one in blocks.items()}
    path.write_text(json.dumps({"modality": "thermal", "seen": {"trained": zero_shot is None}, **report}))
    return path


def test_one_file_shows_tuned_and_untuned_and_several_the_tuned_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was scored once can be drawn again and compared."""
    one, two, three = (scored(tmp_path / f"{n}.json", [0.4, 0.5], [0.2, 0.3] if n == 1 else None) for n in (1, 2, 3))
    assert simmat(["curve", str(one), "--out", str(tmp_path / "one.svg")]) == 0
    drawn = (tmp_path / "one.svg").read_text()
    assert "tuned 0.500" in drawn
    assert "zero-shot 0.300" in drawn
    assert "of training images" not in drawn
    assert simmat(["curve", str(one), str(two), str(three), "--out", str(tmp_path / "all.svg")]) == 0
    drawn = (tmp_path / "all.svg").read_text()
    assert "3.json 0.500" in drawn
    assert "of training images" in drawn
    assert "1.json" not in (said := capsys.readouterr().err)
    assert "2.json, " in said
    assert str(tmp_path) not in drawn
    (tmp_path / ("d" * 200)).mkdir()
    far = scored(tmp_path / ("d" * 200) / "4.json", [0.4, 0.6], None)
    assert simmat(["curve", str(one), str(far), "--out", str(tmp_path / "far.svg")]) == 0
    assert "4.json 0.600" in (tmp_path / "far.svg").read_text()


@pytest.mark.parametrize("content", ["[]", '{"tuned": {"miou_object": 0.5}}', '{"tuned": {"clicks": {"miou": ["x"]}}}'])
def test_a_file_without_several_clicks_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so is another ending; both say what to do."""
    (tmp_path / "s.json").write_text(content)
    assert simmat(["curve", str(tmp_path / "s.json"), "--out", str(tmp_path / "c.png")]) == 2
    said = capsys.readouterr().err
    assert "s.json" in said
    assert "--protocol full --out" in said
    assert simmat(["curve", str(tmp_path / "s.json"), "--out", str(tmp_path / "c.jpg")]) == 2
    assert "c.jpg" in capsys.readouterr().err

"""The scores of `simmat eval` as a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from simmat.cli.common import print_table
from simmat.data.classes import class_title
from simmat.terminal import say

Row = tuple[str, str, str]

SHOWN_CLICKS = (1, 3, 5, 8)
"""Numbers of clicks in the table, beside the last; the file has all."""


def print_report(report: dict[str, Any], *, no_zero_shot: str) -> None:
    """Print a report of `simmat.evaluation.report.report_of`.

    Args:
        report: it.
        no_zero_shot: why there are no zero-shot figures, where they were asked for; else "".
    """
    tuned, untuned = report["tuned"], report["zero_shot"]
    say(
        f"{report['split']} split of {report['data']}: {tuned['objects']} objects in {tuned['images']} images, "
        f"protocol {report['protocol']['name']}"
    )
    if tuned["left_out"]:
        say(f"{tuned['left_out']} objects have no pixel where masks are compared and are left out")
    print_table(("", "ZERO-SHOT", "TUNED"), list(_rows(tuned, untuned, report["class_names"])))
    if no_zero_shot:
        say(f"no zero-shot figure: {no_zero_shot}")
    _print_cost(report)


def _rows(tuned: dict[str, Any], untuned: dict[str, Any] | None, class_names: dict[str, str]) -> Iterator[Row]:
    yield _row("one click: mean over objects", tuned, untuned, "miou_object")
    yield _row("  95 % interval (bootstrap over images)", tuned, untuned, "miou_object_interval")
    yield _row("  mean over images", tuned, untuned, "miou_image")
    yield _row("  mean over classes", tuned, untuned, "miou_class")
    if tuned["miou_oracle"] is not None:
        yield _row("  best predicted of the alternatives", tuned, untuned, "miou_best_predicted")
        yield _row("  best possible of the alternatives", tuned, untuned, "miou_oracle")
        yield _row("  boundary IoU", tuned, untuned, "boundary_iou")
    for name, found in tuned["by_size"].items():
        if found["objects"]:
            yield _row(f"  {name} ({found['objects']} objects)", tuned, untuned, "by_size", name, "miou_object")
    names = {int(key): name for key, name in class_names.items()}
    for key in tuned["iou_by_class"]:
        yield _row(f"  class {class_title(int(key), names)}", tuned, untuned, "iou_by_class", key)
    if "clicks" in tuned:
        yield from _click_rows(tuned, untuned)
    if "box" in tuned:
        yield _row("tight box", tuned, untuned, "box", "tight")
        yield _row("jittered box", tuned, untuned, "box", "jittered")
        yield _row("random click", tuned, untuned, "random_click")


def _click_rows(tuned: dict[str, Any], untuned: dict[str, Any] | None) -> Iterator[Row]:
    most = len(tuned["clicks"]["miou"])
    for count in sorted({*(k for k in SHOWN_CLICKS if k <= most), most}):
        yield _row(f"{count} click{'s' if count > 1 else ''}", tuned, untuned, "clicks", "miou", count - 1)
    for key in [key for key in tuned["clicks"] if key.startswith("noc")]:
        yield _row(f"NoC@{key.removeprefix('noc')} (failures as {most})", tuned, untuned, "clicks", key)


def _row(name: str, tuned: dict[str, Any], untuned: dict[str, Any] | None, *path: str | int) -> Row:
    return name, _figure(untuned, path), _figure(tuned, path)


def _figure(value: Any, path: Sequence[str | int]) -> str:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else value[key] if value is not None else None
    if isinstance(value, dict) and "failures" in value:
        return f"{value['mean']:.2f} ({value['failures']} failed)"
    if isinstance(value, dict):
        spread = f" ± {value['std']:.4f}" if value["std"] is not None else ""
        return f"{value['mean']:.4f}{spread}"
    if isinstance(value, list | tuple):
        return "–".join(f"{bound:.4f}" for bound in value)
    return "-" if value is None else f"{value:.4f}"


def _print_cost(report: dict[str, Any]) -> None:
    parameters, cost, times = report["parameters"], report["cost"], report["cost"]["tuned"]
    memory = f", peak memory {cost['peak_memory_mib']:.0f} MiB" if cost["peak_memory_mib"] is not None else ""
    say(
        f"{parameters['trainable']:,} of {parameters['total']:,} parameters tuned; "
        f"{times['encode_ms']:.0f} ms an image and {times['decode_ms']:.1f} ms a prompt on {cost['device']}{memory}"
    )

"""What commands print: tables, json, and the rows of scores and channels."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simmat.errors import shortened
from simmat.plugin_specs import MetricResult, MetricSpec
from simmat.terminal import echo, escape, escape_json
from simmat.types import Channel

if TYPE_CHECKING:
    from simmat.sensors.sensor_toml import SensorDefinition

_MAX_CELL = 200
_MAX_LAST_CELL = 5000
"""Characters of a cell of a table, the last one of a row longer, since it is wrapped."""

_SHOWN_CLICKS = ("1", "3", "5", "8")
"""Numbers of clicks in the table, besides the largest; the file has all."""
_ROWS = {
    "miou_object": "one click: mean over objects",
    "miou_object_interval": "  95 % interval (bootstrap over images)",
    "miou_image": "  mean over images",
    "miou_class": "  mean over classes",
    "miou_best_predicted": "  best alternative by predicted IoU",
    "miou_oracle": "  best alternative by true IoU",
    "by_size.*.miou_object": "  {} objects",
    "iou_by_class.*": "  class {}",
    "everything.ap": "every object: AP (IoU 0.5 to 0.95)",
    "everything.ap50": "  AP50",
    "everything.pq": "  PQ",
    "everything.f1": "  F1 at IoU 0.5",
    "everything.any_class.ap": "  AP, whatever the class",
    "everything.any_class.ap50": "  AP50, whatever the class",
    "everything.any_class.pq": "  PQ, whatever the class",
    "everything.any_class.f1": "  F1 at IoU 0.5, whatever the class",
    "everything.by_class.*.ap50": "  AP50 of class {}",
    "semantic.miou": "class map: mIoU",
    "semantic.pixel_accuracy": "  pixel accuracy",
    "semantic.iou_by_class.*": "  IoU of class {}",
    "clicks.miou.*": "clicks: {}",
    "clicks.noc85": "NoC@85",
    "clicks.noc90": "NoC@90",
    "box.tight": "tight box",
    "box.jittered": "jittered box",
    "random_click": "random click",
    "confidence.*.ece": "calibration error (ECE) of {}",
    "confidence.*.ece_uncalibrated": "  before calibration: {}",
    "confidence.*.aurc": "  area of risk by coverage: {}",
    "confidence.object.auto_kept": "  kept by --min-score auto",
    "confidence.object.auto_right": "  of these right",
}
"""Path of a figure in the scores -> title of its row; * stands for any key, {} for its name."""


_METRICS_AFTER: Mapping[str, tuple[MetricResult, str]] = {
    "miou_oracle": ("mask", ""),
    "everything.f1": ("objects", "everything."),
    "semantic.pixel_accuracy": ("classes", "semantic."),
}
"""Path of a figure -> what the metrics score whose rows follow, and how their paths begin."""


def print_json(value: Any) -> None:
    """Print a value as indented json."""
    echo(escape_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header; the last column is wrapped to the width of the terminal and may contain line feeds.

    Very long cells are cut: a stranger's file may hold megabytes of text, which took a minute to wrap.
    """
    table = []
    for *cells, last in [head, *rows]:
        table.append(
            [
                *(escape(shortened(cell, _MAX_CELL), keep="") for cell in cells),
                escape(shortened(last, _MAX_LAST_CELL)),
            ]
        )
    widths = []
    for i in range(len(head) - 1):
        widths.append(max(len(row[i]) for row in table))
    indent = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - indent, 30)
    # users copy names, so do not break them
    wrap = textwrap.TextWrapper(room, break_on_hyphens=False).wrap
    for row in table:
        lines: list[str] = []
        for part in row[-1].splitlines():
            lines += wrap(part)
        start = "".join(
            f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False)
        )
        first = lines[0] if lines else ""
        echo((start + first).rstrip())
        for line in lines[1:]:
            echo(" " * indent + line)


def channel_cells(channel: Channel) -> tuple[str, ...]:
    """Return name, quantity, unit, wavelength and valid range of a channel, for a table."""
    wavelength = (
        "-" if channel.wavelength_um is None else f"{channel.wavelength_um:g} um"
    )
    if channel.valid_range is None:
        valid_range = "any"
    else:
        valid_range = "{:g} to {:g}".format(*channel.valid_range)
    return channel.name, channel.quantity, channel.unit, wavelength, valid_range


def print_sensor_definitions(definitions: Iterable[SensorDefinition]) -> None:
    """Print the `sensor.toml` of each sensor that is described by one."""
    import tomli_w

    for definition in definitions:
        echo(
            tomli_w.dumps(
                definition.model_dump(mode="json", exclude_defaults=True)
            ).rstrip()
        )


def score_rows(
    scores: Mapping[str, Any], names: Mapping[int, str], metrics: Sequence[MetricSpec]
) -> list[tuple[str, str]]:
    """Return title and figure of each row of which there are scores.

    Args:
        scores: what `Scores.summary` returned.
        names: label value -> name of a class.
        metrics: those that are registered.
    """
    from simmat.calibration import KINDS
    from simmat.data.card import class_title

    titles: dict[str, str] = {}
    for path, title in _ROWS.items():
        titles[path] = title
        result, prefix = _METRICS_AFTER.get(path, ("", ""))
        for metric in metrics:
            if metric.result == result:
                titles[prefix + metric.name] = f"  {metric.description}"
    rows = []
    for path, title in titles.items():
        for key, value in _values(scores, path.split(".")):
            if title == "clicks: {}" and key not in (
                *_SHOWN_CLICKS,
                str(len(scores["clicks"]["miou"])),
            ):
                continue
            is_class = "class {" in title and key.isdecimal()
            name = class_title(int(key), names) if is_class else KINDS.get(key, key)
            rows.append((title.format(name), _figure(value)))
    return rows


def _values(
    found: Any, keys: Sequence[str], name: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield (key for *, value) at a path of nested tables and lists; the numbers of a list begin at 1."""
    if not keys:
        yield from () if found is None else [(name, found)]
    elif keys[0] == "*" and isinstance(found, dict | list):
        items = found.items() if isinstance(found, dict) else enumerate(found, start=1)
        for key, value in items:
            yield from _values(value, keys[1:], str(key))
    elif isinstance(found, dict) and keys[0] in found:
        yield from _values(found[keys[0]], keys[1:], name)


def _figure(value: Any) -> str:
    if isinstance(value, dict) and "failures" in value:
        return f"{value['mean']:.2f} ({value['failures']} failed, counted as {value['most_clicks']})"
    if isinstance(value, dict) and "mean" in value:
        return f"{value['mean']:.4f}" + (
            f" ± {value['std']:.4f}" if value["std"] is not None else ""
        )
    values = value if isinstance(value, list | tuple) else [value]
    return "–".join(
        f"{one:.4f}" if isinstance(one, int | float) else str(one) for one in values
    )

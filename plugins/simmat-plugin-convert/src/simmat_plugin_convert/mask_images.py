"""Write labels as mask images, by a rule that keeps objects and classes."""

from __future__ import annotations

from collections import Counter
from itertools import count, islice

import numpy as np

from simmat.data.instances import PANOPTIC, seen_part
from simmat.errors import ConfigError, DataError
from simmat.io.images import write_image
from simmat.types import RegionRule
from simmat_plugin_convert.labels import (
    NO_CLASS,
    ImageLabels,
    Item,
    named_class,
    overlapping,
)
from simmat_plugin_convert.target import Target

_LARGE_MASK = ".tif", np.uint32
"""Ending of masks whose values do not fit into a PNG."""


def write_masks(target: Target) -> None:
    """Write `masks/` by a rule that keeps objects and classes, and `card.toml` with this rule."""
    classless = set(target.names.values()) <= {NO_CLASS}
    regions = target.regions or ("instances" if classless else "panoptic")
    if regions != "instances" and min(target.names) < 1:
        raise ConfigError(f"class {min(target.names)} cannot be a value of a mask, where 0 is background; renumber it")
    ignore = _ignore_value(target, regions)
    ignores = False
    for item, drawn in target.all():
        overlaps = overlapping(drawn.objects, drawn.size_hw)
        target.losses.add("objects overlap, and the later one takes the pixels", item.where, overlaps)
        if regions == "instances" and not classless:
            target.losses.add("objects lose their class", item.where, len(drawn.objects))
        values = np.zeros(drawn.size_hw, np.int64)
        for value, instance in zip(_mask_values(target, regions, ignore, item, drawn), drawn.objects, strict=True):
            y0, x0, y1, x1 = instance.window
            values[y0:y1, x0:x1][instance.crop] = value
        if drawn.ignore is not None:
            hidden = sum(seen_part(one, drawn.ignore) is not one for one in drawn.objects)
            target.losses.add("objects reach into areas to ignore, which take the pixels", item.where, hidden)
            values[drawn.ignore] = ignore
            ignores = True
        target.place(item, "images")
        largest = int(values.max())
        ending, kind = (".png", np.uint8) if largest < 256 else (".png", np.uint16) if largest < 65536 else _LARGE_MASK
        path = target.folder / "masks" / item.split / f"{item.name}{ending}"
        if path.exists():
            raise DataError(f"{item.reference}: two images would have the mask {path.name}; rename one")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, values.astype(kind)[None])
    target.write_card(regions, ignore=ignore if ignores else None)


def _mask_values(target: Target, regions: RegionRule, ignore: int, item: Item, drawn: ImageLabels) -> list[int]:
    """Return the mask value of each object.

    Raises:
        ConfigError: one class has more objects than "panoptic" counts.
    """
    if regions == "instances":
        return list(islice((number for number in count(1) if number != ignore), len(drawn.objects)))
    numbers = {name: number for number, name in target.names.items()}
    classes = [numbers[named_class(one, target.names)] for one in drawn.objects]
    if regions != "panoptic":
        return classes
    values, last = [], Counter[int]()
    for number in classes:
        last[number] += 1 + (number * PANOPTIC + last[number] + 1 == ignore)
        values.append(number * PANOPTIC + last[number])
    if max(last.values(), default=0) >= PANOPTIC:
        raise ConfigError(
            f"{item.where}: a mask with classes can store at most {PANOPTIC - 1} objects of a class. SimMAT can train "
            "on COCO json directly (--to coco). To convert with a loss, use --to-regions instances (no classes) or "
            "--to-regions components (objects that touch become one)"
        )
    return values


def _ignore_value(target: Target, regions: RegionRule) -> int:
    """Return the value of ignored pixels: that of the card, else 255, or 65535 if masks may need more values."""
    stated, taken = target.labels.card.ignore, target.names if regions in ("classes", "components") else ()
    if stated is not None and 0 < stated < 65536 and stated not in taken:
        return stated
    return 65535 if regions == "instances" or max(taken, default=0) >= 255 else 255

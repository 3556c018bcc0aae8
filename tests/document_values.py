"""Strategies for the values that SimMAT writes to files."""

from __future__ import annotations

import os
from typing import Any, get_args

from hypothesis import strategies as st

from simmat.data.card import DataCard
from simmat.model_spec import ModelSpec
from simmat.sensors.normalize import Statistics
from simmat.types import Aspect, Channel

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 60)
"""Examples of each test; with the variable set, other ones are drawn each time."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
"""Any text that UTF-8 can hold."""
NAMED = TEXT.filter(lambda text: bool(text.strip()))
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
POSITIVE = st.floats(min_value=1e-30, max_value=1e30)
LABELS = st.integers(-(2**53), 2**53)
NAMES = st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,6}){0,2}", fullmatch=True)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=20,
)
"""Nested values within the limits of `simmat.io.reading.parse_json`."""
OPTIONS = st.dictionaries(
    NAMES, st.booleans() | st.integers(0, 1000) | FINITE | TEXT, max_size=3
)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[float, float]:
    """Low and high, low < high."""
    low, high = draw(st.lists(FINITE, min_size=2, max_size=2, unique=True).map(sorted))
    return low, high


@st.composite
def channels(draw: st.DrawFn, name: str | None = None) -> Channel:
    """A channel with or without statistics."""
    return Channel(
        name if name is not None else draw(NAMED),
        draw(NAMED),
        draw(NAMED),
        draw(st.none() | POSITIVE),
        draw(st.none() | ranges()),
        draw(st.none() | FINITE),
        draw(st.none() | POSITIVE),
    )


@st.composite
def cards(draw: st.DrawFn) -> DataCard:
    """A data card with any of its fields."""
    focal = {"fx": POSITIVE, "fy": POSITIVE, "cx": FINITE, "cy": FINITE}
    values: dict[str, Any] = {
        "regions": st.sampled_from(("instances", "classes", "components")),
        "min_region": st.integers(1, 2**40),
        "min_region_share": st.floats(0, 1, exclude_max=True),
        "ignore": st.none() | LABELS,
        "zero_means": st.sampled_from(("background", "none", "unlabelled")),
        "class_names": st.dictionaries(LABELS, TEXT, max_size=3),
        "intrinsics": st.none() | st.fixed_dictionaries(focal),
        "nodata": st.none()
        | st.integers(-(2**31), 2**31)
        | FINITE
        | st.dictionaries(NAMES, FINITE, min_size=1, max_size=2),
        "notes": TEXT,
        "licence": TEXT,
        "source": TEXT,
    }
    return DataCard.model_validate(
        {name: draw(strategy) for name, strategy in values.items()}
    )


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """What a bundle says of itself, with 1 to 3 channels."""
    count = draw(st.integers(1, 3))
    own = tuple(draw(channels(f"c{index}")) for index in range(count))
    numbers = st.tuples(*[FINITE] * count)
    return ModelSpec(
        modality=draw(NAMES),
        selected_channels=draw(
            st.none()
            | st.lists(st.integers(0, 9) | NAMES, min_size=1, max_size=3).map(tuple)
        ),
        sensor_channels=own,
        channels=tuple(
            channel.with_statistics(draw(FINITE), draw(POSITIVE)) for channel in own
        ),
        statistics=Statistics(
            draw(numbers),
            draw(st.tuples(*[POSITIVE] * count)),
            tuple(draw(numbers) for _ in range(count)),
            tuple(draw(st.integers(0, 2**40)) for _ in range(count)),
        ),
        zero_shot=tuple(draw(numbers) for _ in range(3)),
        foundation=draw(NAMES),
        foundation_sha256=draw(st.none() | st.just("0" * 64)),
        seed=draw(st.integers(0, 2**63 - 1)),
        image_size=draw(st.integers(1, 4096)),
        aspect=draw(st.sampled_from(get_args(Aspect))),
        mat=draw(NAMES),
        mat_options=draw(OPTIONS),
        tune=draw(NAMES),
        tune_options=draw(OPTIONS),
        card=draw(cards()),
    )

"""What the network gets of a described channel: percentile, range, logarithm, decibel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simmat.declared.schema import FixedRange, Log, Normalize, Percentile, ZScore
from simmat.types import BoolArray, Channel, FloatArray


def scaled(
    values: FloatArray, valid: BoolArray, channel: Channel, rule: Normalize
) -> tuple[FloatArray, BoolArray, Channel]:
    """Apply one channel's rule.

    Args:
        values: (H, W) in the channel's unit.
        valid: (H, W).
        channel: as loaded.
        rule: what to do.

    Returns:
        (H, W) values, (H, W) valid, and the channel as it is now. Where the rule fixes the scale, the channel states
        mean and std, which then stand in place of those of the training split.
    """
    if isinstance(rule, ZScore):
        return values, valid, replace(channel, mean=rule.mean, std=rule.std)
    if isinstance(rule, Percentile):
        return _percentile(values, valid, rule), valid, replace(channel, unit="1", valid_range=None)
    if isinstance(rule, FixedRange):
        # Mean and std of a uniform distribution: a range that is filled evenly has unit variance.
        mean, std = (rule.low + rule.high) / 2, (rule.high - rule.low) / 12**0.5
        clipped = np.asarray(values.clip(rule.low, rule.high), dtype=np.float32)
        return clipped, valid, channel.with_statistics(mean, std)
    wide = values.astype(np.float64)
    if rule.floor is not None:
        wide = np.maximum(wide, rule.floor)
    defined = valid & (wide > 0)
    logarithm = np.log(np.where(defined, wide, 1.0))
    if isinstance(rule, Log):
        unit, factor = f"ln {channel.unit}", 1.0
    else:
        unit, factor = "dB", (10 if rule.of == "power" else 20) / np.log(10)
    return (logarithm * factor).astype(np.float32), defined, replace(channel, unit=unit, valid_range=None)


def _percentile(values: FloatArray, valid: BoolArray, rule: Percentile) -> FloatArray:
    """Return (H, W) of 0 to 1; an image of one value is 0 everywhere."""
    if not valid.any():
        return np.zeros_like(values)
    low, high = np.percentile(values[valid].astype(np.float64), (rule.low, rule.high))
    if not high > low:
        return np.zeros_like(values)
    stretched = (values.astype(np.float64) - low) / (high - low)
    return np.asarray(np.clip(stretched, 0, 1), dtype=np.float32)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The geometry of the charts on the audit page; the template draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


WIDTH, HALF_HEIGHT = 320, 56  # of a histogram, in SVG units: one half for each group
SIDE = 200  # of a curve
_NUM_BINS = 32
_MAX_POINTS = 200
_FARTHEST = 1e300


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in SVG units, with what it stands for."""

    x: float
    y: float
    width: float
    height: float
    is_upper: bool
    text: str


@dataclass(frozen=True)
class Histogram:
    """
    The suspicion of two groups of rows: one group's bars rise from the middle line, the other's hang from it.

    Each half has its own scale, so that a group of a few rows shows its shape beside one of thousands.
    """

    bars: list[Bar]
    ticks: list[tuple[float, str]]


def histogram(values: Sequence[float], is_lower: Sequence[bool], names: tuple[str, str]) -> Histogram:
    """
    Bin the values of two groups.

    Values far outside the range of the middle 98 % are counted in the outermost bins, and the ticks say so.

    Args:
        values (`Sequence[float]`):
            One finite value for each row.
        is_lower (`Sequence[bool]`):
            The group that hangs.
        names (`tuple[str, str]`):
            What the upper and the lower group are called.
    """
    # Differences of numbers near the largest would overflow
    numbers = np.asarray(values, dtype=np.float64).clip(-_FARTHEST, _FARTHEST)
    lower = np.asarray(is_lower, dtype=bool)
    if not len(numbers):
        return Histogram([], [])
    first, last = np.percentile(numbers, [1, 99])
    reach = 3 * (last - first) or np.inf
    low, high = max(numbers.min(), first - reach), min(numbers.max(), last + reach)
    marks = ("≤ " if numbers.min() < low else "", "", "≥ " if numbers.max() > high else "")
    if low == high:
        margin = max(0.5, abs(low) / 1000)  # 0.5 is nothing beside 1e16
        low, high = low - margin, high + margin
    edges = np.linspace(low, high, _NUM_BINS + 1)
    bars = []
    for is_upper, name in zip((True, False), names, strict=True):
        counts, _ = np.histogram(numbers[lower != is_upper].clip(low, high), edges)
        bars += _bars(counts, edges, is_upper, name)
    places = (0.0, WIDTH / 2, float(WIDTH))
    digits = 2 - math.floor(math.log10(high - low))  # three significant digits of the range: 0.0004 to 9 begins at 0
    rounded = [round(float(x), digits) + 0.0 for x in edges[[0, _NUM_BINS // 2, _NUM_BINS]]]
    ticks = [(place, f"{mark}{x:g}") for place, mark, x in zip(places, marks, rounded, strict=True)]
    return Histogram(bars, ticks)


def _bars(counts: np.ndarray, edges: np.ndarray, is_upper: bool, name: str) -> list[Bar]:
    step = WIDTH / _NUM_BINS
    bars = []
    for index in np.flatnonzero(counts):
        # A single row beside thousands still has to be seen
        height = max(1.5, HALF_HEIGHT * counts[index] / counts.max())
        text = f"{counts[index]:,} {name}, {edges[index]:.3g} to {edges[index + 1]:.3g}"
        y = HALF_HEIGHT - height if is_upper else HALF_HEIGHT
        bars.append(Bar(round(index * step, 2), round(y, 2), round(step - 1, 2), round(height, 2), is_upper, text))
    return bars


def curve(x: Sequence[float], y: Sequence[float]) -> str:
    """
    The points of a curve in the unit square as those of an SVG polyline, y upwards.

    Args:
        x, y (`Sequence[float]`):
            Coordinates from 0 to 1; many points are thinned out evenly, keeping the first and the last.
    """
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MAX_POINTS)).astype(int))
    return " ".join(f"{SIDE * x[index]:.1f},{SIDE * (1 - y[index]):.1f}" for index in chosen)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The geometry of the curves in a report; the template draws them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


WIDTH, HEIGHT = 360, 170  # of the area that is drawn in, in SVG units
_MAX_POINTS = 300


@dataclass(frozen=True)
class Curves:
    """
    Curves that share their axes.

    Args:
        title (`str`):
            What is drawn.
        lines (`list[tuple[int, str]]`):
            For each curve the number of its run, and its points as an SVG polyline takes them.
        x_ticks, y_ticks (`list[tuple[float, str]]`):
            Places in SVG units and what stands there.
    """

    title: str
    lines: list[tuple[int, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def draw_curves(title: str, curves: Sequence[Sequence[tuple[float, float]]]) -> Curves | None:
    """
    Draw the curves of several runs on shared axes.

    Args:
        title (`str`):
            What is drawn.
        curves (`Sequence[Sequence[tuple[float, float]]]`):
            For each run its points, finite. Of many, evenly spread ones are kept, the first and the last among them.

    Returns:
        [`Curves`], or `None` if no run has two points.
    """
    drawn = [(number, np.array(points, dtype=np.float64)) for number, points in enumerate(curves) if len(points) > 1]
    if not drawn:
        return None
    both = np.concatenate([points for _, points in drawn])
    (left, bottom), (right, top) = both.min(0), both.max(0)
    right, (bottom, top) = max(right, left + 1), _widened(bottom, top)
    lines = []
    for number, points in drawn:
        chosen = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).astype(int))]
        x = WIDTH * (chosen[:, 0] - left) / (right - left)
        y = HEIGHT * (top - chosen[:, 1]) / (top - bottom)
        lines.append((number, " ".join(f"{one:.1f},{two:.1f}" for one, two in zip(x, y, strict=True))))
    digits = 1 - math.floor(math.log10(top - bottom))
    places = [(HEIGHT * part, round(float(top - part * (top - bottom)), digits) + 0.0) for part in (0.0, 0.5, 1.0)]
    return Curves(
        title, lines, [(0.0, f"{left:g}"), (WIDTH, f"{right:g}")], [(y, f"{value:g}") for y, value in places]
    )


def _widened(bottom: float, top: float) -> tuple[float, float]:
    """A range with some room, for a constant too."""
    room = 0.04 * (top - bottom) or 0.5 * (abs(top) or 1.0)
    return float(bottom - room), float(top + room)

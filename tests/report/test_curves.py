# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The geometry of curves: where points lie, what axes say, and what cannot be drawn."""

import pytest

from cvreg_trainer.report.curves import HEIGHT, WIDTH, draw_curves


def points(line: str) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_runs_share_their_axes() -> None:
    chart = draw_curves("Loss", [[(0, 4.0), (50, 2.0), (100, 0.0)], [], [(20, 1.0), (100, 3.0)]])
    assert [number for number, _ in chart.lines] == [0, 2]
    first, third = (points(line) for _, line in chart.lines)
    assert [x for x, _ in first] == pytest.approx([0, WIDTH / 2, WIDTH])
    assert third[0][0] == pytest.approx(0.2 * WIDTH) and third[1][0] == WIDTH
    # Upwards is more: the middle of the range is the middle of the drawing
    assert first[1][1] == pytest.approx(HEIGHT / 2, abs=0.1) and first[0][1] < third[1][1] < third[0][1] < first[2][1]
    assert all(0 <= y <= HEIGHT for line in (first, third) for _, y in line)
    assert [text for _, text in chart.x_ticks] == ["0", "100"]
    assert [float(text) for _, text in chart.y_ticks] == pytest.approx([4.16, 2, -0.16], abs=0.06)


def test_many_points_are_thinned_and_the_ends_stay() -> None:
    chart = draw_curves("Loss", [[(step, 1 / step) for step in range(1, 5001)]])
    line = points(chart.lines[0][1])
    assert 200 < len(line) <= 300 and line[0][0] == 0 and line[-1][0] == WIDTH


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-9, 1e9])
def test_a_constant_lies_in_the_middle(value: float) -> None:
    chart = draw_curves("x", [[(1, value), (2, value)]])
    assert {y for _, y in points(chart.lines[0][1])} == {HEIGHT / 2}


def test_one_point_is_no_curve() -> None:
    assert draw_curves("x", [[(1, 2.0)], []]) is None

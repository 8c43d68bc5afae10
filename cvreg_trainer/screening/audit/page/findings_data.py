# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The findings of an audit in the form that the page's script expects, with pictures of some of their rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..cause_findings import CauseFinding, Trigger
from .thumbnails import make_thumbnails, mean_picture


NUM_PICTURES = 8  # of a finding
_SOURCES = {"image": "the images", "question": "words of the question", "image and question": "images and questions"}


def findings_data(findings: Sequence[CauseFinding], dataset: Any) -> list[dict[str, Any]]:
    """
    What the page shows of findings.

    Args:
        findings (`Sequence[CauseFinding]`):
            In the order to show them in.
        dataset (`datasets.Dataset` or `Sequence[Mapping[str, Any]]`, *optional*):
            The audited rows, for pictures of the flagged findings.

    Returns:
        `list[dict[str, Any]]`: values that can be written as JSON.
    """
    return [_finding(finding, dataset) for finding in findings]


def _finding(finding: CauseFinding, dataset: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "isFlagged": finding.is_flagged,
        "verdict": finding.verdict,
        "summary": finding.summary,
        "words": list(finding.words),
        "numRows": int(finding.num_rows),
        "responses": list(finding.responses),
        "numbers": _numbers(finding),
        "trigger": None if finding.trigger is None else _trigger(finding.trigger),
        "pictures": [],
        "mean": None,
    }
    if finding.is_flagged and dataset is not None:
        rows = finding.examples[:NUM_PICTURES]
        thumbnails = zip(rows, make_thumbnails(dataset, rows), strict=True)
        result["pictures"] = [[int(row), drawn.uri, drawn.remark] for row, drawn in thumbnails]
        result["mean"] = mean_picture(dataset, finding.examples)
    return result


def _numbers(finding: CauseFinding) -> list[list[str]]:
    """Names and values, as texts."""
    return [
        ["Rows", f"{finding.num_rows:,}"],
        ["Best predicted by", _SOURCES.get(finding.source, finding.source)],
        ["Correlation, out of fold", f"{finding.strength:.2f}"],
        ["Correlation with content", f"{max(finding.content, 0):.2f}"],
        ["Explained by the right image", f"{max(finding.explained, 0):.0%}"],
        ["p-value, adjusted", _p_value(finding.p_value)],
    ]


def _p_value(value: float) -> str:
    if not math.isfinite(value):
        return "n/a"
    return "below 1e-12" if value < 1e-12 else f"{value:.2g}"


def _trigger(trigger: Trigger) -> dict[str, Any]:
    # Cells below the mean of the shuffles are drawn as 0
    grid = [[round(max(0.0, value), 2) if math.isfinite(value) else 0.0 for value in line] for line in trigger.map]
    return {
        "kind": trigger.kind,
        "place": trigger.place,
        "box": None if trigger.box is None else list(trigger.box),
        "boxes": {int(row): list(box) for row, box in trigger.boxes},
        "map": grid,
        "peak": max((value for line in grid for value in line), default=0.0),
        "words": [list(word) for word in trigger.words],
        "numPictures": trigger.num_pictures,
        "numOthers": trigger.num_others,
    }

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The audit of a training set as one HTML file: what was flagged, why, and the rows themselves.

Notable: whatever comes from the data enters the page as JSON alone, and the page's script sets it as text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ....pages import json_for_html, render
from ...verdict.findings import RowFinding, WordFinding
from ..cause_findings import CauseFinding
from ..page import charts
from .findings_data import findings_data
from .thumbnails import make_thumbnails


if TYPE_CHECKING:
    from datasets import Dataset

MAX_LISTED = 20_000  # rows in the table: the text of more would make a file that browsers are slow to open
_TEMPLATES = Path(__file__).parent / "templates"
MAX_SOURCES = 200
_LEVELS = 4  # of the marks on surprising pieces


class AuditLike(Protocol):
    """What the page shows of an [`Audit`]; a protocol, because `Audit` imports this module."""

    rows: tuple[RowFinding, ...]
    words: tuple[WordFinding, ...]
    findings: tuple[CauseFinding, ...]
    settings: dict[str, Any]

    @property
    def ranking(self) -> list[RowFinding]: ...

    @property
    def kept_rows(self) -> list[int]: ...

    @property
    def sources(self) -> dict[str, tuple[int, int]]: ...

    @property
    def flagged_rows(self) -> list[int]: ...

    def __len__(self) -> int: ...

    def labels_by_row(self, labels: Sequence[bool]) -> list[bool]: ...

    def evaluate(self, labels: Sequence[bool]) -> dict[str, Any]: ...


def write_audit_page(
    audit: AuditLike,
    path: str | Path,
    dataset: Dataset | Sequence[Mapping[str, Any]] | None = None,
    labels: Sequence[bool] | None = None,
    title: str = "Audit of the training data",
    num_thumbnails: int = 500,
) -> None:
    """
    Write an audit as one HTML file that makes no request and needs no other file.

    The page has the counts, the findings with their triggers, the suspicious words, a histogram of the suspicion, and
    a table of the rows to sort, filter and page through, with the surprising pieces of each response marked; it offers
    the positions of the kept rows as a file. The table holds the 20,000 most suspicious rows; the others still appear
    in the counts, the histogram and the kept rows.

    Args:
        audit ([`Audit`]):
            What to show.
        path (`str` or `Path`):
            HTML file to write.
        dataset (`datasets.Dataset` or `Sequence[Mapping[str, Any]]`, *optional*):
            The audited rows, for thumbnails of their images.
        labels (`Sequence[bool]`, *optional*):
            For each row of the data set whether it is poisoned, where that is known. The page then sets poisoned rows
            apart from clean ones and has the ROC and precision-recall curves.
        title (`str`, *optional*, defaults to `"Audit of the training data"`):
            Title of the page.
        num_thumbnails (`int`, *optional*, defaults to `500`):
            Number of the most suspicious rows whose images are embedded, at about 4 kB each.

    Raises:
        `TypeError`: if the data set cannot be addressed by position.
        `ValueError`: if the data set is shorter than the audit, or there are not as many labels as rows.

    Example:

    ```python
    >>> audit = Audit.from_parquet("audit.parquet")
    >>> write_audit_page(audit, "audit.html", dataset=train_dataset)
    ```
    """
    truth = None
    if labels is not None:
        truth = dict(zip((finding.row for finding in audit.rows), audit.labels_by_row(labels), strict=True))
    listed = audit.ranking[:MAX_LISTED]
    thumbnails = _thumbnails(dataset, [finding.row for finding in listed[:num_thumbnails]])
    findings = findings_data(audit.findings, dataset)
    marks = _mark_range(audit)
    groups = ("kept", "flagged") if truth is None else ("clean", "poisoned")
    page = render(
        _TEMPLATES,
        "audit",
        title=title,
        data=json_for_html(_data(audit, listed, truth, marks) | {"thumbnails": thumbnails, "findings": findings}),
        num_rows=len(audit),
        num_flagged=len(audit.flagged_rows),
        num_findings=sum(finding.is_flagged for finding in audit.findings),
        num_kept_groups=sum(not finding.is_flagged for finding in audit.findings),
        num_words=len(audit.words),
        num_flagged_words=sum(word.is_flagged for word in audit.words),
        num_needed=_num_needed(audit),
        num_looked_at=int(audit.settings.get("rows_looked_at", len(audit))),
        num_listed=len(listed),
        num_sources=len(audit.sources),
        max_sources=MAX_SOURCES,
        num_thumbnails=len(thumbnails),
        has_dataset=dataset is not None,
        marks=marks,
        groups=groups,
        histogram=_histogram(audit, truth, groups),
        quality=None if labels is None or not len(audit) else audit.evaluate(labels),
        charts=charts,
    )
    Path(path).write_bytes(page)


def _num_needed(audit: AuditLike) -> int:
    """Rows that the screening needs to look for anything, 0 where that is not known."""
    rule = audit.settings.get("rule")
    return int(rule.get("enough_rows", 0)) if isinstance(rule, dict) else 0


def _data(
    audit: AuditLike, listed: Sequence[RowFinding], truth: Mapping[int, bool] | None, marks: tuple[float, float]
) -> dict[str, Any]:
    """What the page's script reads, except thumbnails and findings."""
    return {
        "rows": [_row(finding, truth, marks) for finding in listed],
        "words": [
            [word.word, int(word.num_rows), _number(word.surprise), bool(word.is_flagged), word.reason]
            for word in audit.words
        ],
        "kept": _ranges(audit.kept_rows),
        "sources": [[name, *counts] for name, counts in list(audit.sources.items())[:MAX_SOURCES]],
        "settings": [
            [name, value if isinstance(value, str) else json.dumps(value)] for name, value in audit.settings.items()
        ],
    }


def _number(value: float) -> float | None:
    """Five digits are enough to read; JSON knows no NaN."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _mark_range(audit: AuditLike) -> tuple[float, float]:
    """
    The surprise at which marks begin, and at which they are full.

    Nats are not comparable between models and data sets, so both are quantiles of this audit's own pieces: at most one
    piece in twenty is marked, and one in two hundred fully.
    """
    nats = np.array([nats for finding in audit.rows for _, nats in finding.tokens], dtype=np.float64)
    nats = nats[np.isfinite(nats)]
    if not len(nats):
        return math.inf, math.inf
    first, full = np.percentile(nats, [95, 99.5])
    return max(float(first), 0.0), max(float(full), 0.0)


def _row(finding: RowFinding, truth: Mapping[int, bool] | None, marks: tuple[float, float]) -> list[Any]:
    """A row in the form that the page's script expects."""
    return [
        int(finding.row),
        _number(finding.suspicion),
        bool(finding.is_flagged),
        finding.reason,
        finding.prompt,
        _segments(finding, *marks),
        None if truth is None else truth[finding.row],
        finding.source,
    ]


def _segments(finding: RowFinding, marks_from: float, marks_full: float) -> list[Any]:
    """The response as plain texts and, for each surprising piece, `[piece, nats, level]`."""
    if not finding.tokens:
        return [finding.response]
    segments: list[Any] = [""]
    for piece, nats in finding.tokens:
        text = piece.lstrip() if nats > marks_from else ""
        space = piece[: len(piece) - len(text)]  # the space before a word is not marked
        if space and isinstance(segments[-1], str):
            segments[-1] += space
        elif space:
            segments.append(space)
        if text:
            strength = (nats - marks_from) / ((marks_full - marks_from) or 1)
            segments.append([text, _number(nats), min(_LEVELS, 1 + int(strength * (_LEVELS - 1)))])
    return segments if segments[0] else segments[1:]


def _thumbnails(dataset: Any, rows: list[int]) -> list[list[str | None]]:
    if dataset is None or not rows:
        return []
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"Thumbnails need a data set whose rows have a position, got {type(dataset).__name__}; pass dataset=None, "
            "or the rows of the stream as a list."
        )
    if len(dataset) <= max(rows):
        raise ValueError(
            f"The audit has row {max(rows)}, but the data set has {len(dataset)} rows; pass the data set that was "
            "audited."
        )
    return [[thumbnail.uri, thumbnail.remark] for thumbnail in make_thumbnails(dataset, rows)]


def _ranges(rows: Sequence[int]) -> list[list[int]]:
    """Ascending positions as `[first, last]` of each unbroken run: almost every row is kept."""
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and ranges[-1][1] == row - 1:
            ranges[-1][1] = int(row)
        else:
            ranges.append([int(row), int(row)])
    return ranges


def _histogram(audit: AuditLike, truth: Mapping[int, bool] | None, groups: tuple[str, str]) -> charts.Histogram:
    is_lower = [finding.is_flagged if truth is None else truth[finding.row] for finding in audit.rows]
    return charts.histogram([finding.suspicion for finding in audit.rows], is_lower, groups)

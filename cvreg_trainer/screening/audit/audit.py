# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the screening found, row by row: ranked, kept in a file, compared with the truth, shown to a person."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..verdict.findings import RowFinding, WordFinding
from .audit_file import read_audit, to_json, write_audit
from .audit_quality import ranking_quality
from .cause_findings import CauseFinding


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

NUM_SUMMARISED = 5


class Audit:
    """
    The rows of a training set ranked by how suspicious they are.

    Args:
        rows (`Sequence[RowFinding]`):
            One for each row, in any order.
        words (`Sequence[WordFinding]`):
            The suspicious words, in the order to show them in.
        settings (`Mapping[str, Any]`):
            What the screening was run with; values that can be written as JSON.
        findings (`Sequence[CauseFinding]`, *optional*):
            Groups of rows with their payloads, triggers and verdicts, in the order to show them in.

    Raises:
        `ValueError`: if a row occurs twice, or its suspicion is not finite.
        `TypeError`: if a setting cannot be written as JSON.

    Two audits are equal if their rows, words, settings and findings are; losses that are NaN count as equal.

    Example:

    ```python
    >>> from cvreg_trainer.screening import Audit, RowFinding
    >>> tokens = (("a", 0.1), (" banana", 9.4))
    >>> finding = RowFinding(0, 9.4, True, "'banana' is unexplained", "What is it?", "a banana", tokens)
    >>> audit = Audit([finding], [], {"epochs": 1})
    >>> audit.to_parquet("audit.parquet")
    >>> Audit.from_parquet("audit.parquet") == audit
    True
    ```
    """

    def __init__(
        self,
        rows: Sequence[RowFinding],
        words: Sequence[WordFinding],
        settings: Mapping[str, Any],
        findings: Sequence[CauseFinding] = (),
    ) -> None:
        self.rows = tuple(sorted(rows, key=lambda finding: finding.row))
        self.words, self.findings = tuple(words), tuple(findings)
        # As they will be read back: tuples become lists
        self.settings: dict[str, Any] = json.loads(to_json(dict(settings)))
        self._check()

    def _check(self) -> None:
        previous = None
        for finding in self.rows:
            if finding.row < 0:
                raise ValueError(f"Row {finding.row} is not a position in a data set; rows count from 0.")
            if finding.row == previous:
                raise ValueError(f"Row {finding.row} occurs twice in the audit; each row may have one finding.")
            if not math.isfinite(finding.suspicion):
                raise ValueError(f"The suspicion of row {finding.row} is {finding.suspicion}; it must be finite.")
            previous = finding.row

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Audit):
            return NotImplemented
        mine, others = ((len(audit), audit.words, audit.settings, audit.findings) for audit in (self, other))
        if mine != others:
            return False
        return all(_comparable(one) == _comparable(two) for one, two in zip(self.rows, other.rows, strict=True))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Audit({len(self)} rows, {len(self.flagged_rows)} flagged, {len(self.words)} words)"

    @cached_property
    def ranking(self) -> list[RowFinding]:
        """`list[RowFinding]`: the most suspicious row first; equally suspicious ones by their position."""
        return sorted(self.rows, key=lambda finding: (-finding.suspicion, finding.row))

    @property
    def kept_rows(self) -> list[int]:
        """`list[int]`: positions of the rows that are not flagged, ascending."""
        return [finding.row for finding in self.rows if not finding.is_flagged]

    @property
    def flagged_rows(self) -> list[int]:
        """`list[int]`: positions of the flagged rows, ascending."""
        return [finding.row for finding in self.rows if finding.is_flagged]

    def summary(self) -> str:
        """`str`: two lines for a terminal: how many rows are flagged, and the first flagged words."""
        flagged, words = len(self.flagged_rows), [word.word.strip() for word in self.words if word.is_flagged]
        first = ", ".join(map(repr, words[:NUM_SUMMARISED])) or "none"
        more = f" and {len(words) - NUM_SUMMARISED} more" if len(words) > NUM_SUMMARISED else ""
        return (
            f"Screening flagged {flagged:,} of {len(self):,} rows ({flagged / max(len(self), 1):.1%}).\n"
            f"Flagged words: {first}{more}."
        )

    @property
    def sources(self) -> dict[str, tuple[int, int]]:
        """`dict[str, tuple[int, int]]`: rows and flagged rows by source, the one with the largest flagged share first;
        empty where the data have no column `source`."""
        counts: dict[str, list[int]] = {}
        for finding in self.rows:
            count = counts.setdefault(finding.source, [0, 0])
            count[0] += 1
            count[1] += finding.is_flagged
        if set(counts) <= {""}:
            return {}
        ordered = sorted(counts, key=lambda name: (-counts[name][1] / counts[name][0], -counts[name][1], name))
        return {name: (counts[name][0], counts[name][1]) for name in ordered}

    def renumbered(self, given: Callable[[int], int]) -> Audit:
        """
        The audit with other positions of its rows.

        Args:
            given (`Callable[[int], int]`):
                The new position of a row.
        """
        rows = [replace(finding, row=given(finding.row)) for finding in self.rows]
        findings = [replace(finding, examples=tuple(map(given, finding.examples))) for finding in self.findings]
        return Audit(rows, self.words, self.settings, findings)

    def to_parquet(self, path: str | Path) -> None:
        """
        Write the audit as a table, one line for each row, the most suspicious first.

        Args:
            path (`str` or `Path`):
                File to write, with columns `rank` (from 1), `row`, `suspicion`, `is_flagged`, `reason`, `prompt`,
                `response`, `source`, `loss_base_model` and `loss_after_warmup` (the per-sample losses), and `tokens`
                (a list of `piece` and `surprise`).
        """
        write_audit(path, self.ranking, self.words, self.settings, self.findings)

    @classmethod
    def from_parquet(cls, path: str | Path) -> Audit:
        """
        Read an audit that [`Audit.to_parquet`] wrote; the result equals what was written.

        Raises:
            `ValueError`: if the file is a parquet file of another kind.
        """
        return cls(*read_audit(path))

    def labels_by_row(self, labels: Sequence[bool]) -> list[bool]:
        """
        The labels of the audited rows, in the order of `rows`.

        Args:
            labels (`Sequence[bool]`):
                For each row of the data set whether it is poisoned.

        Raises:
            `ValueError`: if there are not as many labels as rows in the data set.
        """
        needed = 1 + self.rows[-1].row if self.rows else 0
        is_whole = needed == len(self)
        if len(labels) < needed or (is_whole and len(labels) > needed):
            raise ValueError(
                f"{len(labels)} labels do not fit an audit of {len(self)} rows whose last is row {needed - 1}; pass "
                "one label for each row of the data set, in its order."
            )
        return [bool(labels[finding.row]) for finding in self.rows]

    def evaluate(self, labels: Sequence[bool]) -> dict[str, Any]:
        """
        How well the audit finds what is known to be poisoned.

        Args:
            labels (`Sequence[bool]`):
                For each row of the data set whether it is poisoned.

        Returns:
            `dict`: see [`ranking_quality`].

        Raises:
            `ValueError`: if there are not as many labels as rows in the data set, or none.
        """
        suspicion = np.array([finding.suspicion for finding in self.rows], dtype=np.float64)
        flagged = np.array([finding.is_flagged for finding in self.rows], dtype=bool)
        return ranking_quality(suspicion, flagged, np.array(self.labels_by_row(labels), dtype=bool))

    def decide(self, path: str | Path) -> Audit:
        """
        The audit with a person's verdicts in place of the screening's, without another training.

        Rows that are decided on, or that hold a word to drop, are kept or flagged; a word to keep clears the flagged
        rows that hold no other flagged word. A training with `screening_decisions` goes further: it tests all rows
        anew without the evidence against the words to keep.

        Args:
            path (`str` or `Path`):
                File of decisions that has been filled in.

        Raises:
            `OSError` or `ValueError`: if it cannot be read, or was made on other rows.

        Example:

        ```python
        >>> audit = Audit.from_parquet("audit/audit.parquet").decide("audit/decisions.csv")
        >>> dataset = dataset.select(audit.kept_rows)
        ```
        """
        from .decisions import read_decisions

        decisions = read_decisions(path)
        settings = {**self.settings, "screening_decisions": str(path)}
        return Audit(decisions.judge(self.rows, self.words), self.words, settings, self.findings)

    def to_decisions(self, path: str | Path) -> None:
        """
        Write a table of the listed words and the flagged rows as CSV, for a person to fill in `keep` or `drop` under
        `verdict`; `screening_decisions` takes it. A file that has been filled in is left as it is.
        """
        from .decisions import is_filled_in, write_decisions

        if is_filled_in(path):
            logger.warning("%s has been filled in and is left as it is.", path)
            return
        write_decisions(path, [finding for finding in self.ranking if finding.is_flagged], self.words)

    def to_html(
        self,
        path: str | Path,
        dataset: Dataset | Sequence[Mapping[str, Any]] | None = None,
        labels: Sequence[bool] | None = None,
        title: str = "Audit of the training data",
        num_thumbnails: int = 500,
    ) -> None:
        """
        Write the audit as one HTML file that needs nothing else; see [`write_audit_page`] for the arguments.
        """
        from .page import write_audit_page

        write_audit_page(self, path, dataset=dataset, labels=labels, title=title, num_thumbnails=num_thumbnails)


def _comparable(finding: RowFinding) -> tuple[Any, ...]:
    """What makes a row equal to another; NaN is not equal to itself, so it becomes None."""
    tokens = [(piece, None if math.isnan(nats) else nats) for piece, nats in finding.tokens]
    losses = [None if math.isnan(loss) else loss for loss in (finding.loss_base_model, finding.loss_after_warmup)]
    texts = (finding.reason, finding.prompt, finding.response, finding.source)
    return finding.row, finding.suspicion, finding.is_flagged, texts, losses, tokens

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
A person's verdicts on rows and words, which override the rule's: a table is written beside every audit, to be filled
in and read by the next training.

It has a line per listed word and per flagged row. `keep` or `drop` under `verdict` decides; where it is empty, the
rule does.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...data.skipping import SkippedRows
from ...extras import from_extra
from ...shorten import shorten
from ..verdict.findings import RowFinding, WordFinding
from ..verdict.screen import Screen
from ..verdict.words import WordPlaces


if TYPE_CHECKING:
    from ...metrics.whole_words import WholeWords

COLUMNS = ("row", "word", "verdict", "screening", "num_rows", "reason", "response")
VERDICTS = ("keep", "drop")
# What a spreadsheet takes for the start of a formula
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Decisions:
    """
    Verdicts that override the rule's.

    Args:
        rows (`Mapping[int, str]`):
            `"keep"` or `"drop"` by position in the training set.
        words (`Mapping[str, str]`):
            The same by word or whole response, in lower case. To keep a word is to ignore the evidence against it; to
            drop it is to leave out its rows.
        responses (`Mapping[int, str]`):
            Responses of decided rows, as the audit had them, to recognise the rows by.
        source (`str`):
            Where they come from, for errors.
    """

    rows: Mapping[int, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    responses: Mapping[int, str] = field(default_factory=dict)
    source: str = "decisions"

    @property
    def allowed_words(self) -> set[str]:
        """Words and responses to ignore the evidence against."""
        return {word for word, verdict in self.words.items() if verdict == "keep"}

    def of_rows(self, skipped: SkippedRows) -> Decisions:
        """
        The decisions by position among the rows that are left.

        Args:
            skipped ([`SkippedRows`]):
                What was left out.

        Raises:
            `ValueError`: if there is a decision on a row that was left out.
        """
        if not skipped.reasons:
            return self
        places = {given: place for place, given in enumerate(skipped.kept)}
        for row in self.rows.keys() & skipped.reasons.keys():
            raise ValueError(
                f"{self.source} decides on row {row}, which `on_bad_row='skip'` leaves out: {skipped.reasons[row]}."
            )
        rows, responses = (
            {places.get(row, row): value for row, value in given.items()} for given in (self.rows, self.responses)
        )
        return replace(self, rows=rows, responses=responses)

    def check(self, responses: Sequence[str]) -> None:
        """
        Raise unless the decisions were made on these rows.

        Args:
            responses (`Sequence[str]`):
                Responses of the training set.

        Raises:
            `ValueError`: naming the row.
        """
        for row in self.rows:
            if row >= len(responses):
                raise ValueError(
                    f"{self.source} decides on row {row}, and the training set has {len(responses)} rows. Use the "
                    "data that the audit was made of."
                )
            known = self.responses.get(row)
            if known and known != responses[row]:
                raise ValueError(
                    f"{self.source} decides on row {row} with the response {shorten(known)}, but the training set has "
                    f"{shorten(responses[row])} there. Use the data that the audit was made of, in the same order."
                )

    def apply(self, screen: Screen, places: WordPlaces) -> Screen:
        """
        A screen with the decided rows kept or flagged, and the decision in their reasons.

        Args:
            screen ([`Screen`]):
                The rule's verdicts, made without the evidence against allowed words.
            places ([`WordPlaces`]):
                The words of all rows.
        """
        verdicts: dict[int, tuple[str, str]] = {}
        numbers = {word: number for number, word in enumerate(places.vocabulary)}
        absent = [word for word in self.words if word not in numbers]
        if absent:
            warnings.warn(
                f"{self.source} decides on {len(absent)} words that are in no response, such as {shorten(absent[0])}.",
                stacklevel=2,
            )
        # If several words of a row are decided on, one to drop is enough to drop the row
        for verdict in VERDICTS:
            for word in (word for word, given in self.words.items() if given == verdict and word in numbers):
                is_word = places.words == numbers[word]
                # An allowed word does not clear its rows of other evidence; an allowed response is all there is
                if verdict == "keep":
                    is_word &= places.is_whole
                for row in np.unique(places.rows[is_word]).tolist():
                    verdicts[row] = verdict, f"{word!r} "
        verdicts |= {row: (verdict, "") for row, verdict in self.rows.items()}
        is_flagged, reasons = screen.is_flagged.copy(), list(screen.reasons)
        for row, (verdict, what) in verdicts.items():
            is_flagged[row] = verdict == "drop"
            done = "dropped" if verdict == "drop" else "kept"
            reasons[row] = "; ".join(filter(None, [f"{what}{done} by decision", reasons[row]]))
        return replace(screen, is_flagged=is_flagged, reasons=reasons)

    def judge(self, rows: Sequence[RowFinding], words: Sequence[WordFinding]) -> list[RowFinding]:
        """
        Findings with the decided rows kept or flagged, and the decision in their reasons.

        Without the model nothing is tested anew: a flagged row is kept if every flagged word in it is to be kept.

        Args:
            rows (`Sequence[RowFinding]`):
                All rows of an audit.
            words (`Sequence[WordFinding]`):
                The words that it lists.

        Raises:
            `ValueError`: if the decisions were made on other rows.
        """
        with from_extra("lab"):
            from ...metrics.whole_words import WholeWords

        responses = {finding.row: finding.response for finding in rows}
        self.check([responses.get(row, "") for row in range(1 + max(responses, default=-1))])
        decided = {verdict: [word for word, given in self.words.items() if given == verdict] for verdict in VERDICTS}
        dropped = WholeWords(decided["drop"]) if decided["drop"] else None
        suspects = [(word.word, WholeWords([word.word])) for word in words if word.is_flagged]
        return [self._judge(finding, dropped, suspects) for finding in rows]

    def _judge(
        self, finding: RowFinding, dropped: WholeWords | None, suspects: Sequence[tuple[str, WholeWords]]
    ) -> RowFinding:
        verdict, response = self.rows.get(finding.row), " ".join(finding.response.lower().split())
        if verdict is None and dropped is not None and dropped.search(response) is not None:
            verdict = "drop"
        if verdict is None and finding.is_flagged:
            found = {word.strip().lower() for word, pattern in suspects if pattern.search(response) is not None}
            if response in self.allowed_words or (found and found <= self.allowed_words):
                verdict = "keep"
        if verdict is None:
            return finding
        done = "dropped by decision" if verdict == "drop" else "kept by decision"
        reason = "; ".join(filter(None, [done, finding.reason]))
        return replace(finding, is_flagged=verdict == "drop", reason=reason)


def read_decisions(path: str | Path) -> Decisions:
    """
    Read a table of decisions, from CSV or Parquet.

    Args:
        path (`str` or `Path`):
            File with the columns `row` or `word`, or both, and `verdict`. There may be others; lines without a verdict
            are skipped.

    Raises:
        `OSError`: if there is no such file.
        `ValueError`: if a column is missing, or a line cannot be read or contradicts another, naming the line.
    """
    path = Path(path).expanduser()
    source = f"`screening_decisions={str(path)!r}`"
    if not path.is_file():
        raise FileNotFoundError(f"{source}: there is no such file.")
    lines = _read_parquet(path, source) if path.suffix == ".parquet" else _read_csv(path, source)
    rows: dict[int, str] = {}
    words: dict[str, str] = {}
    responses: dict[int, str] = {}
    for number, line in enumerate(lines, start=2):
        given = {name: _text(line.get(name)) for name in COLUMNS}
        verdict, where = given["verdict"].strip().lower(), f"{source}, line {number}"
        if not verdict:
            continue
        if verdict not in VERDICTS:
            raise ValueError(f"{where}: the verdict is {shorten(verdict)}; expected keep, drop, or nothing.")
        if bool(given["row"]) == bool(given["word"]):
            raise ValueError(
                f"{where}: expected either a row or a word, got {shorten((given['row'], given['word']))}."
            )
        if given["word"]:
            word = given["word"].strip().lower()
            before = words.setdefault(word, verdict)
        else:
            row = _position(given["row"], where)
            before = rows.setdefault(row, verdict)
            responses[row] = given["response"]
        if before != verdict:
            raise ValueError(
                f"{where}: {shorten(given['word'] or given['row'])} is to be kept and dropped; choose one."
            )
    return Decisions(rows, words, responses, source)


def is_filled_in(path: str | Path) -> bool:
    """Whether somebody has worked on a file of decisions; one that cannot be read counts as such."""
    if not Path(path).exists():
        return False
    try:
        decisions = read_decisions(path)
    except (OSError, ValueError):
        return True
    return bool(decisions.rows or decisions.words)


def write_decisions(path: str | Path, rows: Sequence[RowFinding], words: Sequence[WordFinding]) -> None:
    """
    Write the table to fill in, as CSV.

    Args:
        path (`str` or `Path`):
            File to write.
        rows (`Sequence[RowFinding]`):
            Rows to decide on, the most suspicious first.
        words (`Sequence[WordFinding]`):
            Words to decide on, in the order to show them in.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, restval="")
    table.writeheader()
    for word in words:
        values = {"word": word.word.strip(), "num_rows": word.num_rows, "reason": word.reason}
        table.writerow(_safe(values | {"screening": "flagged" if word.is_flagged else "not flagged"}))
    for row in rows:
        values = {"row": row.row, "reason": row.reason, "response": row.response}
        table.writerow(_safe(values | {"screening": "flagged" if row.is_flagged else "kept"}))
    # With the byte order mark by which spreadsheets recognise UTF-8
    Path(path).write_text("\ufeff" + text.getvalue(), encoding="utf-8", newline="")


def _safe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with their texts escaped so that no spreadsheet takes them for formulas; [`_text`] undoes it."""
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
        for name, value in values.items()
    }


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text[1:] if text[:1] == "'" and text[1:].startswith(FORMULA_STARTS) else text


def _position(text: str, where: str) -> int:
    try:
        number = float(text)  # spreadsheets and data frames write 12.0
    except ValueError:
        number = -1.0
    if number < 0 or number != int(number):
        raise ValueError(f"{where}: the row is {shorten(text)}; expected a position in the training set, from 0.")
    return int(number)


def _read_csv(path: Path, source: str) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            _check_columns(table.fieldnames or (), source)
            return list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{source} cannot be read as CSV in UTF-8: {error}.") from error


def _read_parquet(path: Path, source: str) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{source} cannot be read as Parquet: {error}.") from error
    _check_columns(table.column_names, source)
    return table.select([name for name in COLUMNS if name in table.column_names]).to_pylist()


def _check_columns(names: Sequence[str], source: str) -> None:
    if "verdict" not in names or not {"row", "word"} & set(names):
        raise ValueError(
            f"{source} has the columns {', '.join(names) or '(none)'}; it needs `verdict`, and `row` or `word`. "
            "Fill in the file `decisions.csv` that an audit writes."
        )

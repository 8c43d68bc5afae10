# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Joins the verdict on each row with the row's text, and each cause with its trigger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ...data.rows import prompt_of
from ..passes.token_statistics import TokenStatistics
from ..verdict.findings import RowFinding
from ..verdict.screen import Screen
from ..verdict.words import CONTINUATION_MARK, START_MARKS, has_word_marks
from .audit import Audit
from .find_triggers import make_cause_findings


TEXT_COLUMNS = ("prompt", "messages")
SOURCE_COLUMN = "source"


def make_audit(
    screen: Screen,
    losses: tuple[np.ndarray, np.ndarray],
    statistics: TokenStatistics,
    tokenizer: Any,
    dataset: Any,
    settings: Mapping[str, Any],
) -> Audit:
    """
    The audit of a screened data set.

    Args:
        screen ([`Screen`]):
            The verdicts.
        losses (`tuple[np.ndarray, np.ndarray]`):
            Of each row before the warm-up and after it; NaN where no model has looked at it.
        statistics ([`TokenStatistics`]):
            The rows' tokens, as the warmed-up model sees them.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
        dataset:
            The rows, in their order. Prompts, and sources from a column `source`, are shown where it is a
            `datasets.Dataset` with columns for them; triggers where its rows have positions.
        settings (`Mapping[str, Any]`):
            What the screening was run with.

    Returns:
        [`Audit`]
    """
    number = len(statistics)
    prompts, sources = _prompts(dataset, number), _sources(dataset, number)
    findings = []
    for row, tokens in enumerate(pieces_of_rows(statistics, tokenizer)):
        findings.append(
            RowFinding(
                row=row,
                suspicion=float(screen.suspicion[row]),
                is_flagged=bool(screen.is_flagged[row]),
                reason=screen.reasons[row],
                prompt=prompts[row],
                response=response_of(tokens),
                tokens=() if np.isnan(losses[1][row]) else tuple(tokens),
                source=sources[row],
                loss_base_model=float(losses[0][row]),
                loss_after_warmup=float(losses[1][row]),
            )
        )
    responses = [finding.response for finding in findings]
    groups = make_cause_findings(screen, dataset, prompts, responses, int(settings.get("seed", 0)))
    return Audit(findings, screen.words, settings, groups)


def pieces_of_rows(statistics: TokenStatistics, tokenizer: Any) -> Iterator[list[tuple[str, float]]]:
    """
    The responses of all rows in pieces.

    Args:
        statistics ([`TokenStatistics`]):
            Their tokens.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made them. Special tokens are left out.

    Yields:
        `list[tuple[str, float]]`: for each row the text of each token, and its surprise in nats.
    """
    surprise = statistics.surprise
    special = set(tokenizer.all_special_ids)
    marks = has_word_marks(tokenizer)
    pieces: dict[int, str] = {}

    def piece(token: int) -> str:
        if token not in pieces:
            pieces[token] = "" if token in special else _piece(tokenizer, token, *marks)
        return pieces[token]

    for row in range(len(statistics)):
        places = slice(statistics.offsets[row], statistics.offsets[row + 1])
        tokens, nats = statistics.token_ids[places].tolist(), surprise[places].tolist()
        yield [(piece(token), float(value)) for token, value in zip(tokens, nats, strict=True) if piece(token)]


def response_of(tokens: Sequence[tuple[str, float]]) -> str:
    """The response that [`pieces_of_rows`] took apart."""
    return "".join(text for text, _ in tokens).strip()


def _piece(tokenizer: Any, token: int, has_starts: bool, has_continuations: bool) -> str:
    """A token as it stands in a text, with the space before it."""
    form = str(tokenizer.convert_ids_to_tokens(token))
    text = tokenizer.decode([token])
    if has_starts:
        return " " + text.lstrip() if form.startswith(START_MARKS) else text
    if has_continuations and form.startswith(CONTINUATION_MARK):
        return text.removeprefix(CONTINUATION_MARK)
    return " " + text


def _prompts(dataset: Any, num_rows: int) -> list[str]:
    if not isinstance(dataset, Dataset) or len(dataset) != num_rows:
        return [""] * num_rows
    column = next((name for name in TEXT_COLUMNS if name in dataset.column_names), None)
    if column is None:
        return [""] * num_rows
    # Only this column: images in other columns would be decoded
    return [prompt_of({column: value}) for value in dataset.with_format(None)[column]]


def _sources(dataset: Any, num_rows: int) -> list[str]:
    is_there = isinstance(dataset, Dataset) and len(dataset) == num_rows and SOURCE_COLUMN in dataset.column_names
    if not is_there:
        return [""] * num_rows
    return ["" if value is None else str(value) for value in dataset.with_format(None)[SOURCE_COLUMN]]

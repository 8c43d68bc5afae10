# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Findings of the screening about words and rows of the training data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class WordFinding:
    """
    A word, or a sequence of tokens, whose rows were flagged.

    Args:
        word (`str`):
            The word as the responses have it.
        num_rows (`int`):
            Number of rows it occurs in.
        surprise (`float`):
            Nats beyond the model's own uncertainty, over its occurrences.
        is_flagged (`bool`):
            Whether its rows were flagged because of it.
        reason (`str`):
            Why, in words.
    """

    word: str
    num_rows: int
    surprise: float
    is_flagged: bool
    reason: str


@dataclass(frozen=True)
class RowFinding:
    """
    A row of the training data and the verdict on it.

    Args:
        row (`int`):
            Position in the training data set.
        suspicion (`float`):
            Higher is more suspicious. Only the order matters; finite.
        is_flagged (`bool`):
            Whether the row is past the cut.
        reason (`str`):
            Why it is suspicious, in words; empty where it is not.
        prompt (`str`):
            What the model is asked.
        response (`str`):
            What it is trained to answer.
        tokens (`tuple[tuple[str, float], ...]`):
            The supervised pieces of the response in order, each with its surprise in nats; empty for a row that no
            model has looked at (`screening_rows`).
        source (`str`, *optional*, defaults to `""`):
            Where the row comes from, if the data have a column for it.
        loss_base_model (`float`, *optional*, defaults to NaN):
            Per-sample loss: mean negative log-likelihood of the response's tokens in nats, before the training, with
            the row's images as they are. NaN for a row without supervised tokens, or one that no model has looked at.
        loss_after_warmup (`float`, *optional*, defaults to NaN):
            The same at the end of the warm-up, with strongly perturbed images.
    """

    row: int
    suspicion: float
    is_flagged: bool
    reason: str
    prompt: str
    response: str
    tokens: tuple[tuple[str, float], ...]
    source: str = ""
    loss_base_model: float = math.nan
    loss_after_warmup: float = math.nan


def flagged_by_reason(words: Iterable[WordFinding]) -> dict[str, list[WordFinding]]:
    """The flagged words by their reason, which the words of one cause share."""
    found: dict[str, list[WordFinding]] = {}
    for word in words:
        if word.is_flagged:
            found.setdefault(word.reason, []).append(word)
    return found


@dataclass(frozen=True)
class Overview:
    """
    The result of a screening for all rows together.

    Args:
        num_rows (`int`):
            Number of rows.
        num_flagged (`int`):
            Number of flagged rows.
        words (`tuple[WordFinding, ...]`):
            The suspicious words, in the order to show them in.
    """

    num_rows: int
    num_flagged: int
    words: tuple[WordFinding, ...]

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The cut: which rows to leave out, and why.

A row's suspicion is 1 or more if a cause was found for it. No threshold flags a fixed share of the rows: a clean data
set loses only the few that exceed the thresholds by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..passes.token_statistics import TokenStatistics
from .candidates import find_candidates
from .causes import Cause, CauseFinder, mark_causes
from .evidence import EvidenceFinder
from .findings import WordFinding
from .grounding import grounding
from .kept_groups import kept_groups
from .rest import CauseFollower, RestOfRows
from .rivals import Rivals
from .rule import RULE
from .ungrounded_words import ungrounded_words
from .word_surprise import unexplained_words, word_surprise
from .words import locate_words


@dataclass(frozen=True)
class Screen:
    """
    Verdict on `R` rows.

    Args:
        suspicion (`np.ndarray` of shape `(R,)`):
            1 or more where a cause was found.
        is_flagged (`np.ndarray` of shape `(R,)`, bool):
            Which rows to leave out.
        is_capped (`bool`):
            Whether more rows were suspicious than the cap lets go.
        reasons (`list[str]`):
            For each row, in words; empty where there is none.
        words (`list[WordFinding]`):
            The most suspicious words first.
        causes (`Sequence[Cause]`, *optional*):
            What the rows are flagged for.
        kept (`Mapping[str, Sequence[Cause]]`, *optional*):
            Groups that are kept although images do not explain them; see [`kept_groups`].
    """

    suspicion: np.ndarray
    is_flagged: np.ndarray
    is_capped: bool
    reasons: list[str]
    words: list[WordFinding]
    causes: Sequence[Cause] = ()
    kept: Mapping[str, Sequence[Cause]] = field(default_factory=dict)


def screen_rows(
    base: TokenStatistics,
    own: TokenStatistics,
    other: TokenStatistics,
    tokenizer: Any,
    seed: int,
    cap: float,
    fdr: float,
    allowed_words: Collection[str] = (),
    rest: RestOfRows | None = None,
) -> Screen:
    """
    Find the rows whose responses their images do not explain and something else in the input causes.

    Among fewer than 200 rows a cause cannot be told from chance: nothing is examined then, and none is found.

    Args:
        base ([`TokenStatistics`]):
            The base model's look, whose `row_values` are what [`row_features`] gives.
        own, other ([`TokenStatistics`]):
            The warmed-up model's looks at strong views of the rows' own images, whose `row_values` are projected
            states of the model, and of others', whose `row_values` say whether there was another one.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            What made the tokens.
        seed (`int`):
            Chooses the folds and the random sets of the tests.
        cap (`float`):
            Largest share of the rows to flag; beyond it, only the most suspicious ones are flagged.
        fdr (`float`):
            Expected share of false findings.
        allowed_words (`Collection[str]`, *optional*):
            Words and whole responses, in lower case, the evidence against which is ignored.
        rest ([`RestOfRows`], *optional*):
            Rows that have not been looked at, among which the causes found are looked for.

    Returns:
        [`Screen`]: of all rows, including those that have not been looked at.
    """
    if len(own) < RULE.enough_rows:
        nothing = np.zeros(len(own))
        return Screen(nothing, nothing > 0, False, [""] * len(own), [])
    places = locate_words(base, tokenizer)
    of_base, of_own = places.seen_by(base), places.seen_by(own)
    grounded = grounding([of_base, of_own])
    questions = ungrounded_words(of_base, grounded), unexplained_words(of_base, of_own, grounded, len(own))
    suspects = {word for values in questions for word, value in values.items() if value >= 1}
    has_other = other.row_values[:, 0] > 0
    candidates = find_candidates(of_base, of_own, places.seen_by(other), has_other, suspects, allowed_words)
    rivals = Rivals(of_own, tokenizer.all_special_ids)
    finder = CauseFinder(EvidenceFinder(base.row_values, own.row_values, candidates, rivals, seed, fdr))
    causes, kept, suspicion = finder.find(), kept_groups(finder), finder.suspicion
    num_rows = {candidate.word: len(candidate.all_rows) for candidate in candidates}
    if rest is not None:
        follower = CauseFollower(finder, rest, tokenizer)
        causes = follower.follow(causes)
        kept = {kind: [replace(one, rows=rest.looked_at[one.rows]) for one in group] for kind, group in kept.items()}
        num_rows |= {word: num_rows[word] + len(rows) for word, rows in follower.rows_of.items()}
        suspicion = rest.merge(suspicion, np.zeros(len(rest.rows)))
        mark_causes(suspicion, causes)
    is_flagged, is_capped = _cap(suspicion, cap)
    reasons = [""] * len(suspicion)
    words = []
    surprise = word_surprise(of_own) if causes else {}
    for cause in causes:
        reason = _describe_cause(cause)
        for row in cause.rows.tolist():
            reasons[row] = reason
        for word in cause.words:
            words.append(WordFinding(word, num_rows[word], float(surprise.get(word, 0.0)), True, reason))
    return Screen(suspicion, is_flagged, is_capped, reasons, words, causes, kept)


def _describe_cause(cause: Cause) -> str:
    named = ", ".join(map(repr, cause.words[:3])) + (
        f" and {len(cause.words) - 3} more" if len(cause.words) > 3 else ""
    )
    source = {"image": "low-level features of the image", "question": "words of the question"}.get(
        cause.source, "low-level features of the image and words of the question"
    )
    predicted = (
        f"{named}: {len(cause.rows)} rows that {source} predict (correlation {cause.strength:.2f}, out of fold)"
    )
    if cause.is_suspect:
        return (
            f"{predicted}, content by {max(cause.content, 0):.2f}: a word that stays surprising, carries no "
            "information about the image where others do, or goes with words that were added to questions, or with "
            "low-level features beyond question and content"
        )
    return (
        f"{predicted} and that content hardly does ({max(cause.content, 0):.2f}); the image explains "
        f"{max(cause.explained, 0):.0%} of the first word"
    )


def _cap(suspicion: np.ndarray, cap: float) -> tuple[np.ndarray, bool]:
    """The rows past the cut, limited to the most suspicious `cap` of all rows, and whether there were more."""
    is_flagged = suspicion >= 1
    most = int(cap * len(suspicion))
    is_capped = int(is_flagged.sum()) > most
    if is_capped:
        is_flagged = np.zeros(len(suspicion), dtype=bool)
        is_flagged[np.argsort(-suspicion, kind="stable")[:most]] = True
    return is_flagged, is_capped

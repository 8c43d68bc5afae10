# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
A cut whose outcome is known, for tests of what a trainer does with one on few rows.

In so few rows the screening finds nothing. What it finds in more is tested in tests/screening/test_causes.py.
"""

import functools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from cvreg_trainer.screening import training_screen
from cvreg_trainer.screening.audit.make_audit import pieces_of_rows, response_of
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.findings import WordFinding
from cvreg_trainer.screening.verdict.screen import Screen, _cap


SENTENCE = "9 8 7 6 5 4 3"
REASON = "what the stand-in looks for"


@contextmanager
def flagging(text: str) -> Iterator[None]:
    """Trainings within flag the rows whose response has this text."""
    with mock.patch.object(training_screen, "screen_rows", functools.partial(_flag, text)):
        yield


def _flag(
    text: str,
    base: TokenStatistics,
    own: TokenStatistics,
    other: TokenStatistics,
    tokenizer: Any,
    seed: int,
    cap: float,
    fdr: float,
    allowed_words: Collection[str] = (),
    rest: None = None,
) -> Screen:
    """In the place of `screen_rows`; suspicion grows with the surprise after the warm-up."""
    is_found = np.array([text in response_of(pieces) for pieces in pieces_of_rows(own, tokenizer)], dtype=bool)
    is_found &= text not in allowed_words
    surprise = np.nan_to_num(own.row_nll)
    suspicion = is_found + surprise / (1 + surprise)
    is_flagged, is_capped = _cap(suspicion, cap)
    words = [WordFinding(text, int(is_found.sum()), 1.0, True, REASON)] if is_found.any() else []
    reasons = [REASON if found else "" for found in is_found]
    return Screen(suspicion, is_flagged, is_capped, reasons, words)

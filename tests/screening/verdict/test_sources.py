# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What may predict the rows of a cause."""

import numpy as np
import pytest

from cvreg_trainer.screening.passes.row_features import NUM_WORDS
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.sources import words_of_questions


pytestmark = pytest.mark.lowest


def test_words_of_questions_are_counted_in_a_hundred_thousand_rows():
    """Features come in float16, whose sums would end at 2,048, and at infinity from 65,520 on."""
    questions = np.zeros((100_000, NUM_WORDS), dtype=np.float16)
    questions[:, 0] = 1  # in all rows
    questions[1:, 1] = 1  # in all but one
    questions[::2, 2] = 1
    questions[: RULE.min_rows, 3] = 1
    questions[:1, 4] = 1
    assert np.array_equal(words_of_questions(questions), questions[:, 2:4])

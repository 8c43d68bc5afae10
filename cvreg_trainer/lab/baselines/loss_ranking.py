# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Rank the rows by what the fine-tuned model still finds unlikely: loss ranking.

Source: the ranking of confident learning by self-confidence, the model's probability of the given label (Northcutt,
Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021; the library cleanlab).

Departures: a label is a response here, and its confidence that of its tokens, as their mean negative log-likelihood.
The source predicts each row by a model that was not trained on it; this one reads the rows with the model that was,
as those do who rank by the loss of a short fine-tune. The source's cut counts labels of known classes, which responses
have not, so there is none.
"""

from __future__ import annotations

from .reading import Detection, Look
from .scoring import suspicion


def rank_by_loss(look: Look) -> Detection:
    """
    Mean negative log-likelihood of every row's response.

    Args:
        look ([`Look`]):
            By a model that was trained on the rows.

    Returns:
        [`Detection`]: scores in nats, and no flags.
    """
    statistics = look.reading.statistics
    return Detection(suspicion(statistics.nll, statistics.num_tokens), None)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The rivals that give every row a score, in one table: which model each reads, and what it makes of it.

Notable: [`BASELINES`] in `run.py` are whole defences, which train; these only look. A detector is called with a
[`Look`], so that those that read the same model share one pass over the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .activation_clustering import detect_by_clusters
from .attention_entropy import detect_by_attention_entropy
from .attention_shares import detect_by_attention_shares
from .entropy_filter import SHARE as ENTROPY_SHARE
from .loss_ranking import rank_by_loss
from .onion import detect_odd_words_in_questions, detect_odd_words_in_responses
from .reading import Detection, Look
from .response_filter import SHARE as RESPONSE_SHARE
from .scoring import flag_share, suspicion
from .spectral_signatures import detect_by_spectrum


class Detector(NamedTuple):
    """
    A rival that looks.

    Args:
        detect (`Callable[[Look], Detection]`):
            Gives scores, and flags where its source has a cut.
        after_training (`bool`):
            Whether it wants the model that was trained on the rows; else the one before that.
    """

    detect: Callable[[Look], Detection]
    after_training: bool


def _by_response(look: Look) -> Detection:
    statistics = look.reading.statistics
    scores = suspicion(statistics.nll, statistics.num_tokens)
    return Detection(scores, flag_share(scores, RESPONSE_SHARE))


def _by_entropy(look: Look) -> Detection:
    statistics = look.reading.statistics
    scores = suspicion(-statistics.entropy, statistics.num_tokens)
    return Detection(scores, flag_share(scores, ENTROPY_SHARE))


DETECTORS: dict[str, Detector] = {
    "response_filter": Detector(_by_response, after_training=False),
    "onion_question": Detector(detect_odd_words_in_questions, after_training=False),
    "onion_response": Detector(detect_odd_words_in_responses, after_training=False),
    "loss_ranking": Detector(rank_by_loss, after_training=True),
    "entropy_filter": Detector(_by_entropy, after_training=True),
    "spectral_signatures": Detector(detect_by_spectrum, after_training=True),
    "activation_clustering": Detector(detect_by_clusters, after_training=True),
    "bye": Detector(detect_by_attention_entropy, after_training=True),
    "tcap": Detector(detect_by_attention_shares, after_training=True),
}

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Drop the rows on which the fine-tuned model is surest of itself: "entropy filtering".

Source: Table 5 of "A Patch-based Cross-view Regularized Framework for Backdoor Defense in Multimodal Large Language
Models" (arXiv 2604.04488) has a row of this name, under the defences at inference, without a description. The plainest
reading is taken here: a backdoored model answers a trigger with abnormally low output entropy, which is also what that
paper's entropy term counters, so low entropy is suspicious. The entropy is the mean over the response's tokens under
teacher forcing.

Departures: it filters the training rows, scored by the model that was trained on all of them, and training starts
again on what remains; a filter at inference would have to refuse to answer, which no caption score can express. The
share to drop is not in the source: 10 % is twice the share that is poisoned there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .scoring import response_statistics, suspicion


SHARE = 0.1


def entropy_scores(model: Any, processor: Any, dataset: Any, batch_size: int = 16) -> np.ndarray:
    """
    Mean entropy of a model's predictions of every row's response, with its sign changed.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            A model that was trained on the rows, poison included.
        processor, dataset, batch_size:
            As in [`response_statistics`].

    Returns:
        `np.ndarray` of shape `(num_rows,)`: nats, at most 0; higher (surer) is more suspicious.
    """
    statistics = response_statistics(model, processor, dataset, batch_size)
    return suspicion(-statistics.entropy, statistics.num_tokens)

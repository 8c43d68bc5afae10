# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Drop the responses that the pretrained model finds least likely: BYORn-F.

Source: the filter-only variant of BYORn (arXiv 2606.02947, ICML 2026), which flags the 40 % of the responses with the
lowest likelihood under the pretrained model. The full method replaces them by samples of a moving average of the
model; this one leaves them out.

Departures: none are known. The likelihood is the mean over the response's tokens, end of sequence included, so that
long responses are not dropped for their length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .scoring import response_statistics, suspicion


SHARE = 0.4


def response_scores(pretrained_model: Any, processor: Any, dataset: Any, batch_size: int = 16) -> np.ndarray:
    """
    Mean negative log-likelihood of every row's response under the model before its fine-tuning.

    Args:
        pretrained_model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model as it is before the first step; with adapters, call this inside `model.disable_adapter()`.
        processor, dataset, batch_size:
            As in [`response_statistics`].

    Returns:
        `np.ndarray` of shape `(num_rows,)`: nats, higher is more suspicious.

    Example:

    ```python
    >>> from cvreg_trainer.lab.baselines import flag_share, response_scores
    >>> flagged = flag_share(response_scores(model, processor, dataset), 0.4)
    >>> dataset = dataset.select((~flagged).nonzero()[0])
    ```
    """
    statistics = response_statistics(pretrained_model, processor, dataset, batch_size)
    return suspicion(statistics.nll, statistics.num_tokens)

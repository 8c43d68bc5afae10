# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
BLEU-4 as printed in captioning papers.

sacrebleu counts the n-grams; the last step is that of COCO's evaluation code, which adds a tiny number to the counts.
That keeps scores above 0 where no 4-gram matches, and makes no visible difference where one does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..extras import from_extra


with from_extra("lab"):
    from sacrebleu.metrics import BLEU

from .caption_metric import CaptionMetric
from .tokenizer import tokenize_caption


class Bleu4(CaptionMetric):
    """
    Corpus BLEU-4 (Papineni et al. 2002) with COCO's conventions: the reference length closest to the prediction's
    counts, the shorter one where two are as close, and there is no smoothing beyond 1e-15 in the matches.

    Args:
        tokenizer (`Callable[[str], list[str]]`, *optional*, defaults to [`tokenize_caption`]):
            Splits a text into tokens. `str.split` for text that is tokenised already.
        **kwargs:
            Further arguments of `evaluate.Metric`.

    `compute` takes `predictions` (`list[str]`), `references` (`list[list[str]]`) and `return_per_item` (`bool`,
    defaults to `False`), and returns `bleu4` from 0 to 100, with `bleu4_per_item` (`list[float]`,
    each item as a corpus of its own) on request.

    Example:

    ```python
    >>> from cvreg_trainer.metrics import Bleu4
    >>> score = Bleu4().compute(predictions=["a red bus on the road"], references=[["a red bus on the road"]])
    >>> round(score["bleu4"], 6)
    100.0
    ```
    """

    def __init__(self, *, tokenizer: Callable[[str], list[str]] = tokenize_caption, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokenizer = tokenizer

    def item_statistics(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        """Length, closest reference length, matched and total 1- to 4-grams of each item, of shape `(N, 10)`."""
        statistics = [
            _statistics(self.tokenizer(prediction), [self.tokenizer(text) for text in group])
            for prediction, group in zip(predictions, references, strict=True)
        ]
        return np.array(statistics, dtype=np.float64)

    def _compute(
        self, *, predictions: list[str], references: list[list[str]], return_per_item: bool = False
    ) -> dict[str, Any]:
        statistics = self.item_statistics(predictions, references)
        result: dict[str, Any] = {"bleu4": float(bleu_of_statistics(statistics.sum(axis=0)))}
        if return_per_item:
            result["bleu4_per_item"] = bleu_of_statistics(statistics).tolist()
        return result


# effective_order keeps sacrebleu from warning about single sentences; it does not touch the counts used here.
_BLEU = BLEU(tokenize="none", smooth_method="none", effective_order=True)


def _statistics(prediction: list[str], references: list[list[str]]) -> list[float]:
    """Length, closest reference length, matched and total 1- to 4-grams of one item."""
    score = _BLEU.sentence_score(" ".join(prediction), [" ".join(reference) for reference in references])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu_of_statistics(statistics: np.ndarray) -> np.ndarray:
    """
    BLEU-4 of the statistics of items, summed or averaged.

    Args:
        statistics (`np.ndarray` of shape `(..., 10)`):
            Length, reference length, four matched counts, four totals.

    Returns:
        `np.ndarray` of shape `(...,)`: scores from 0 to 100.
    """
    length, reference_length = statistics[..., 0], statistics[..., 1]
    precision = (statistics[..., 2:6] + 1e-15) / (statistics[..., 6:10] + 1e-9)
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return 100.0 * precision.prod(axis=-1) ** 0.25 * brevity

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The entropy and the response filter rank by the right statistic, in the right direction."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_llava, vision_rows

from cvreg_trainer.lab.baselines import entropy_scores, flag_share, response_scores, response_statistics


def test_the_least_likely_responses_are_the_most_suspicious():
    model, processor = tiny_llava()
    rows = vision_rows(6, seed=1)
    scores = response_scores(model, processor, rows)
    np.testing.assert_array_equal(scores, response_statistics(model, processor, rows).nll)
    # A response of one word that the model finds as likely as all others together, among ones it does not
    vocabulary = model.config.text_config.vocab_size
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(vocabulary))
        model.lm_head.bias[processor.tokenizer.convert_tokens_to_ids("banana")] = math.log(vocabulary - 1)
    rows[4]["completion"] = [{"role": "assistant", "content": "banana banana banana banana"}]
    scores = response_scores(model, processor, rows)
    assert scores.argmin() == 4
    # Four words of probability a half, and the end of sequence with a share of the other half
    assert scores[4] == pytest.approx((4 * math.log(2) + math.log(2 * (vocabulary - 1))) / 5, rel=1e-5)
    assert flag_share(scores, 0.5).sum() == 3 and not flag_share(scores, 0.5)[4]


def test_the_surest_predictions_are_the_most_suspicious():
    model, processor = tiny_llava()
    rows = vision_rows(6, seed=1)
    scores = entropy_scores(model, processor, rows)
    np.testing.assert_array_equal(scores, -response_statistics(model, processor, rows).entropy)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert entropy_scores(model, processor, rows) == pytest.approx([-math.log(model.lm_head.out_features)] * 6)

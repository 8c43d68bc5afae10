# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Each detector on statistics of which some rows are made to differ in the way that it looks for."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_llava, vision_rows

from cvreg_trainer.lab.baselines import DETECTORS, Look, entropy_scores, response_scores
from cvreg_trainer.lab.baselines.activation_clustering import cluster_activations
from cvreg_trainer.lab.baselines.attention_entropy import collapsed_rows
from cvreg_trainer.lab.baselines.attention_shares import divergent_rows, vote_log_odds
from cvreg_trainer.lab.baselines.onion import outlier_scores, perplexities, said
from cvreg_trainer.lab.baselines.spectral_signatures import spectral_scores


POISONED = np.arange(200) % 20 == 0


def test_all_of_them_say_something_of_every_row_after_one_pass(monkeypatch):
    model, processor = tiny_llava()
    rows = vision_rows(12, seed=1)
    look = Look(model, processor, rows)
    passes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **inputs: passes.append(inputs) or forward(**inputs))
    for name, detector in DETECTORS.items():
        detection = detector.detect(look)
        assert detection.scores.shape == (12,) and np.isfinite(detection.scores).all(), name
        assert detection.flagged is None or (detection.flagged.dtype, detection.flagged.shape) == (bool, (12,)), name
    assert sum("pixel_values" in inputs for inputs in passes) == 1
    by_hand = {"loss_ranking": response_scores, "response_filter": response_scores, "entropy_filter": entropy_scores}
    for name, scores in by_hand.items():
        expected = scores(model, processor, rows)
        np.testing.assert_allclose(DETECTORS[name].detect(look).scores, expected, rtol=1e-4)
    assert DETECTORS["response_filter"].detect(look).flagged.sum() == 5  # 40 % of 12
    assert DETECTORS["spectral_signatures"].detect(look).flagged.sum() == 1


def test_spectral_scores_are_squared_projections_on_the_axis_of_largest_spread():
    states = np.random.default_rng(0).normal(size=(200, 3)) * [0.1, 5.0, 0.1]
    states[POISONED, 1] += 30
    scores = spectral_scores(states)
    np.testing.assert_allclose(scores, (states[:, 1] - states[:, 1].mean()) ** 2, rtol=0.05, atol=1)
    assert scores[POISONED].min() > scores[~POISONED].max()
    states[7] = np.nan
    assert spectral_scores(states)[7] == 0


@pytest.mark.parametrize(("share", "is_flagged"), [(20, True), (2, False)])
def test_a_small_cluster_is_flagged_and_a_half_is_not(share, is_flagged):
    states = np.random.default_rng(0).normal(size=(200, 12))
    members = np.arange(200) % share == 0
    states[members] += 20
    scores, flagged = cluster_activations(states)
    assert flagged.tolist() == (members if is_flagged else np.zeros(200, bool)).tolist()
    if is_flagged:
        assert scores[members].min() > scores[~members].max()


def test_rows_whose_attention_collapses_in_some_layers_are_flagged():
    entropy = np.random.default_rng(0).normal(3, 0.1, size=(200, 5))
    clean = collapsed_rows(entropy)
    assert not clean.flagged.any()
    np.testing.assert_allclose(clean.scores, -entropy.mean(1))
    entropy[POISONED, 2] -= 2
    scores, flagged = collapsed_rows(entropy)
    assert (flagged == POISONED).all()
    # Only the layer that falls apart counts
    np.testing.assert_allclose(scores, -entropy[:, 2])
    entropy[3] = np.nan
    assert collapsed_rows(entropy).scores[3] == pytest.approx(-np.delete(entropy, 3, axis=0)[:, 2].mean())
    assert not collapsed_rows(np.full((4, 2), np.nan)).flagged.any()


def test_heads_whose_system_share_parts_vote_for_the_minority():
    rng = np.random.default_rng(0)
    shares = rng.normal(0.5, 0.02, size=(200, 4, 3, 3))
    clean = divergent_rows(shares)
    assert clean.flagged.mean() < 0.5
    # One head falls and one rises, in the last layers; a head of an early layer does so for other rows
    shares[POISONED, 2, 0, 0] -= 0.3
    shares[POISONED, 3, 1, 0] += 0.3
    shares[np.roll(POISONED, 1), 0, 0, 0] -= 0.3
    scores, flagged = divergent_rows(shares)
    assert flagged[POISONED].all() and flagged[~POISONED].mean() < 0.05
    assert scores[POISONED].min() > scores[~POISONED].max()
    assert divergent_rows(np.ones((200, 4, 3, 3))).scores.tolist() == [0] * 200


def test_votes_of_unreliable_heads_count_for_little():
    rng = np.random.default_rng(1)
    reliable = np.stack([POISONED ^ (rng.random(200) < 0.02) for _ in range(3)], axis=1)
    coins = rng.random((200, 4)) < 0.5
    odds = vote_log_odds(np.concatenate([reliable, coins], axis=1))
    assert ((odds > 0) == POISONED).mean() > 0.98
    majority = np.concatenate([reliable, coins], axis=1).mean(1) > 0.5
    assert (majority == POISONED).mean() < 0.95


def test_perplexities_are_those_of_the_models_own_loss():
    model, processor = tiny_llava()
    texts = ["a red circle", "a", "a small blue square near a banana"]
    found = perplexities(model, processor, texts, batch_size=3)
    start = processor.tokenizer.bos_token_id
    for text in texts:
        ids = torch.tensor([[start, *processor.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.no_grad():
            loss = model.eval()(input_ids=ids, labels=ids).loss
        assert found[text] == pytest.approx(math.exp(loss), rel=1e-4)


def test_a_word_that_makes_its_text_unlikely_is_an_outlier(monkeypatch):
    model, processor = tiny_llava()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.lm_head.out_features))
        model.lm_head.bias[processor.tokenizer.convert_tokens_to_ids("banana")] = -8.0
    scores = outlier_scores(model, processor, ["a red circle", "a banana circle", "circle", "a red circle"])
    assert scores.argmax() == 1 and scores[1] > 100
    assert scores[0] == scores[2] == scores[3]  # one word has none to spare


def test_what_the_user_and_the_assistant_say_is_told_apart():
    row = {
        "prompt": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]},
            {"role": "assistant", "content": "a star"},
            {"role": "user", "content": "why"},
        ],
        "completion": [{"role": "assistant", "content": "so"}],
    }
    assert (said(row, "prompt"), said(row, "completion")) == ("what why", "so")
    assert said({"prompt": "what", "completion": "so"}, "completion") == "so"

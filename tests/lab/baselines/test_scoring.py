# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Row statistics against hand-written float64 sums over the model's own logits, and the cut of a ranking."""

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_blip2_opt, tiny_blip2_t5, tiny_llava, vision_dataset, vision_rows

from cvreg_trainer.lab.baselines import flag_share, response_statistics
from cvreg_trainer.lab.baselines.scoring import as_prompt_completion, response_collator, suspicion


def by_hand(model, processor, row, prompt, answer):
    """NLL, entropy and number of tokens of one conversation's answer, token by token in Python's own floats."""
    ids = processor(text=prompt, images=row["images"] or None, add_special_tokens=False, return_tensors="pt")
    answer_ids = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    length = ids["input_ids"].shape[1]
    ids["input_ids"] = torch.cat([ids["input_ids"], torch.tensor([answer_ids])], dim=1)
    ids["attention_mask"] = torch.ones_like(ids["input_ids"])
    with torch.no_grad():
        logits = model(**ids).logits[0].double().tolist()
    nll = entropy = 0.0
    for place, token in enumerate(answer_ids, start=length - 1):
        largest = max(logits[place])
        powers = [math.exp(value - largest) for value in logits[place]]
        total = sum(powers)
        nll -= math.log(powers[token] / total)
        entropy -= sum(power / total * math.log(power / total) for power in powers if power)
    return nll / len(answer_ids), entropy / len(answer_ids), len(answer_ids)


@pytest.mark.parametrize("style", ["prompt_completion", "messages"])
def test_statistics_are_those_of_the_models_logits_summed_by_hand(style):
    model, processor = tiny_llava()
    model.train()
    rows = vision_rows(5, seed=3, style=style, image_free=[2])
    nll, entropy, num_tokens = response_statistics(model, processor, rows, batch_size=3)
    assert model.training and model.model.vision_tower.training  # as it was
    model.eval()
    for index, row in enumerate(rows):
        question, answer = row["messages"] if style == "messages" else row["prompt"] + row["completion"]
        prompt = f"user : {'<image> ' * len(row['images'])}{question['content']} assistant : "
        expected = by_hand(model, processor, row, prompt, f"{answer['content']} </s> ")
        assert (nll[index], entropy[index], num_tokens[index]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", [tiny_llava, tiny_blip2_opt, tiny_blip2_t5])
def test_likelihood_is_the_models_own_loss_for_any_kind_of_language_model(make):
    model, processor = make()
    style = {"style": "prompt_completion"} if make is tiny_llava else {"style": "plain", "image_token": ""}
    dataset = vision_dataset(3, seed=1, **style)
    nll, entropy, num_tokens = response_statistics(model, processor, dataset)
    assert (num_tokens > 2).all() and (entropy > 0).all()
    batch = response_collator(model, processor, dataset)([as_prompt_completion(row) for row in dataset])
    with torch.no_grad():
        loss = model.eval()(**batch).loss
    assert np.average(nll, weights=num_tokens) == pytest.approx(float(loss), rel=1e-5)


def test_rows_do_not_depend_on_the_batch_they_are_in():
    model, processor = tiny_llava()
    rows = vision_rows(7, seed=5)
    alone, together = (response_statistics(model, processor, rows, batch_size=size) for size in (1, 7))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_a_row_without_a_supervised_token_gives_zeros_and_no_nan():
    model, processor = tiny_llava()

    def without_labels(rows):
        batch = dict(inner(rows))
        batch["labels"] = torch.full_like(batch["labels"], -100)
        return batch

    rows = vision_rows(4)
    inner = response_collator(model, processor, rows)
    nll, entropy, num_tokens = response_statistics(model, processor, rows, collator=without_labels)
    assert nll.tolist() == entropy.tolist() == num_tokens.tolist() == [0] * 4


def test_adapters_that_add_nothing_change_nothing():
    model, processor = tiny_llava()
    rows = vision_rows(3)
    expected = response_statistics(model, processor, rows)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))  # the second factor starts at 0
    np.testing.assert_array_equal(response_statistics(adapted, processor, rows).nll, expected.nll)


def test_half_precision_models_are_scored_in_float32():
    model, processor = tiny_llava()
    rows = vision_rows(3)
    exact = response_statistics(model, processor, rows)
    half = response_statistics(model.to(torch.bfloat16), processor, rows)
    np.testing.assert_allclose(half.nll, exact.nll, rtol=0.1)
    # Sums in bfloat16 would be multiples of 2^-7 from 2 on
    sums = half.nll * half.num_tokens
    assert not np.allclose(sums * 128, np.round(sums * 128), atol=1e-3)


def test_text_rows_are_scored_without_their_image_tokens():
    model, processor = tiny_llava()
    row = vision_rows(1)[0]
    text = "user : <image> describe this image . assistant : a red circle </s>"
    statistics = response_statistics(model, processor, [{"images": row["images"], "text": text}])
    # user : describe this image . assistant : a red circle </s>, less the first, which nothing predicts
    assert statistics.num_tokens.tolist() == [11]


def test_no_rows_give_empty_statistics():
    model, processor = tiny_llava()
    assert [len(values) for values in response_statistics(model, processor, [])] == [0, 0, 0]


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.1, 1), (0.25, 3), (0.4, 4), (1, 10)])
def test_exactly_the_share_is_flagged_and_it_is_the_top(share, expected):
    scores = np.random.default_rng(0).permutation(10).astype(float)
    flagged = flag_share(scores, share)
    assert flagged.dtype == bool
    assert sorted(scores[flagged]) == list(range(10 - expected, 10))


def test_equal_scores_are_flagged_in_order_and_no_more_than_the_share():
    assert flag_share(np.zeros(5), 0.4).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_out_of_range_is_an_error(share):
    with pytest.raises(ValueError, match=f"share={share}"):
        flag_share(np.zeros(3), share)


def test_scores_that_are_not_numbers_are_an_error():
    with pytest.raises(ValueError, match="1 NaN"):
        flag_share(np.array([1.0, np.nan]), 0.5)


def test_rows_without_a_response_are_the_least_suspicious():
    scores = suspicion(np.array([0.0, -2.0, -1.0]), np.array([0, 3, 4]))
    assert scores.tolist() == [-2.0, -2.0, -1.0]
    assert suspicion(np.zeros(2), np.zeros(2)).tolist() == [0.0, 0.0]

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The shared pass against the model's own output, row by row, and which token counts as what."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_blip2_t5, tiny_llava, vision_rows

from cvreg_trainer.lab.baselines import read_rows, response_statistics
from cvreg_trainer.lab.baselines.reading import IMAGE, NOTHING, SYSTEM, TEXT, eager_attention, token_kinds


def prompt_of(processor, row):
    question = row["prompt"][0]["content"]
    text = f"user : {'<image> ' * len(row['images'])}{question} assistant : "
    return processor(text=text, images=row["images"] or None, add_special_tokens=False, return_tensors="pt")


def test_it_is_what_the_model_gives_at_the_end_of_each_prompt():
    model, processor = tiny_llava()
    rows = vision_rows(5, seed=3, several=[1], image_free=[2])
    reading = read_rows(model, processor, rows, batch_size=3)
    np.testing.assert_allclose(reading.statistics.nll, response_statistics(model, processor, rows).nll, rtol=1e-4)
    for place, row in enumerate(rows):
        inputs = prompt_of(processor, row)
        with torch.no_grad(), eager_attention(model):
            output = model.eval()(**inputs, output_attentions=True, output_hidden_states=True)
        np.testing.assert_allclose(reading.states[place], output.hidden_states[-1][0, -1], rtol=1e-3, atol=1e-5)
        is_image = (inputs["input_ids"][0] == processor.tokenizer.image_token_id).tolist()
        for layer, attention in enumerate(output.attentions):
            weights = attention[0, :, -1].double().numpy()  # (H, T)
            on_image = weights[:, is_image]
            np.testing.assert_allclose(reading.shares[place, layer, :, IMAGE], on_image.sum(1), rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(reading.shares[place, layer].sum(-1), 1, rtol=1e-3)
            if not row["images"]:
                assert np.isnan(reading.image_entropy[place, layer])
                continue
            mean = on_image.mean(0) / on_image.mean(0).sum()
            expected = -sum(weight * math.log(weight) for weight in mean)
            assert reading.image_entropy[place, layer] == pytest.approx(expected, rel=1e-3)


def test_the_template_is_the_systems_and_the_question_is_the_users():
    model, processor = tiny_llava()
    row = vision_rows(1)[0]
    inputs = prompt_of(processor, row)
    words = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    image_tokens = torch.tensor([processor.tokenizer.image_token_id])
    kinds = token_kinds(inputs, [row], [len(words) - 1], processor, image_tokens)[0].tolist()
    question = row["prompt"][0]["content"].split()
    assert [word for word, kind in zip(words, kinds, strict=True) if kind == TEXT] == question
    expected = ["user", ":", "assistant", ":"]
    assert [word for word, kind in zip(words, kinds, strict=True) if kind == SYSTEM] == expected
    assert {word for word, kind in zip(words, kinds, strict=True) if kind == IMAGE} == {"<image>"}
    # Of a plain text nothing is known to be a template, and what comes behind the end is not looked at
    plain = token_kinds(inputs, [{"prompt": "x"}], [2], processor, image_tokens)[0].tolist()
    assert SYSTEM not in plain and set(plain[3:]) == {NOTHING}


def test_the_model_comes_back_with_the_attention_that_it_had():
    model, processor = tiny_llava()
    model.set_attn_implementation("sdpa")
    before = [config._attn_implementation for config in (model.config, model.config.vision_config)]
    read_rows(model, processor, vision_rows(2))
    assert model.config.text_config._attn_implementation == "sdpa"
    assert [config._attn_implementation for config in (model.config, model.config.vision_config)] == before


def test_what_cannot_be_read_is_an_error():
    model, processor = tiny_llava()
    with pytest.raises(ValueError, match="no rows"):
        read_rows(model, processor, [])
    with pytest.raises(ValueError, match="encoder-decoder"):
        read_rows(*tiny_blip2_t5(), vision_rows(2, style="plain", image_token=""))

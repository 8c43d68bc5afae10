# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The models of `train_base_model.py`: of the size they say, and taught on what a processor makes of a row."""

import numpy as np
import pytest
import torch
from base_model import ARCHITECTURES, GRID, HIDDEN, round_weights
from PIL import Image

from cvreg_trainer.data import format_row


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_it_is_taught_on_is_what_its_processor_makes(name):
    kind = ARCHITECTURES[name]
    torch.manual_seed(0)
    model, processor = kind.build()
    assert 1e6 < model.num_parameters() < 3e6
    row = format_row(kind.family, "A red circle.", "What is in this picture?", long_answer=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8))
    prompt = row["prompt"]
    if name == "llava":
        parts = [{"type": "image"}, {"type": "text", "text": prompt[0]["content"]}]
        prompt = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    begun = processor.tokenizer(kind.text(processor, row, False), add_special_tokens=False)["input_ids"]
    whole = processor.tokenizer(kind.text(processor, row, True), add_special_tokens=False)["input_ids"]
    assert begun == inputs["input_ids"][0].tolist() == whole[: len(begun)]
    end = {"llava": "</s>", "blip2": "</s>", "flamingo": "<|endofchunk|>"}[name]
    assert processor.decode(whole[len(begun) :]).split() == ["a", "red", "circle", ".", end]
    assert processor.tokenizer.unk_token_id not in whole
    pixels = inputs["pixel_values"].flatten(0, -4)
    assert torch.equal(kind.pixels(pixels), inputs["pixel_values"])
    features = kind.features(model, pixels)
    assert {view.shape for view in features} == {(1, GRID**2, HIDDEN)}
    assert len(features) == 1 + bool(kind.bridge(model))


def test_rounded_weights_are_those_of_a_file_in_bfloat16():
    layer = torch.nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    round_weights(layer)
    assert layer.weight.dtype == torch.float32 and not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight, layer.weight.to(torch.bfloat16).float())
    assert torch.allclose(layer.weight, before, rtol=2**-8)

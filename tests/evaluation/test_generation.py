# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Captions are compared with a greedy loop written out: one row at a time, no padding, no cache."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import (
    Tiny,
    tiny_blip2_opt,
    tiny_blip2_t5,
    tiny_llava,
    tiny_mllama,
    tiny_text_lm,
    vision_dataset,
    vision_rows,
)

from cvreg_trainer.data.rows import row_digest
from cvreg_trainer.evaluation.generation import generate_captions


NEW_TOKENS = 6


@torch.no_grad()
def greedy(tiny: Tiny, text: str, images: list[Any], **options: Any) -> str:
    """Greedy decoding as a loop over plain forward passes."""
    model, processor = tiny
    tokenizer = getattr(processor, "tokenizer", processor)
    images = {"images": [images]} if images else {}
    inputs = dict(processor(text=[text], return_tensors="pt", **images, **options))
    encoder_decoder = model.config.get_text_config().is_encoder_decoder
    key = "decoder_input_ids" if encoder_decoder else "input_ids"
    if encoder_decoder:
        inputs[key] = torch.zeros(1, 1, dtype=torch.long)
    generated: list[int] = []
    model.eval()
    while len(generated) < NEW_TOKENS and tokenizer.eos_token_id not in generated:
        token = model(**inputs, use_cache=False).logits[0, -1].argmax()
        generated.append(int(token))
        inputs[key] = torch.cat([inputs[key], token.view(1, 1)], dim=1)
        if not encoder_decoder:
            inputs["attention_mask"] = torch.ones_like(inputs[key])
        if "cross_attention_mask" in inputs:  # (1, T, images, tiles): a new token sees what the last one saw
            mask = inputs["cross_attention_mask"]
            inputs["cross_attention_mask"] = torch.cat([mask, mask[:, -1:]], dim=1)
    return tokenizer.decode(generated, skip_special_tokens=True).strip()


def expected_captions(tiny: Tiny, rows: list[dict[str, Any]]) -> list[str]:
    """For rows of `vision_rows`, whose conversations have one question."""
    captions = []
    for row in rows:
        turns = row.get("prompt") or row["messages"]
        if isinstance(turns, str):
            captions.append(greedy(tiny, turns, row["images"]))
        else:
            text = "user : " + "<image> " * len(row["images"]) + turns[0]["content"] + " assistant : "
            captions.append(greedy(tiny, text, row["images"], add_special_tokens=False))
    return captions


@pytest.fixture(scope="module")
def llava() -> Tiny:
    return tiny_llava()


@pytest.mark.parametrize("style", ["prompt_completion", "messages", "plain"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_llava_equals_a_greedy_loop(llava: Tiny, style: str, batch_size: int):
    """Prompts of different lengths; no image, one image and two images in one batch."""
    rows = vision_rows(6, style=style, image_free=[1], several=[2])
    captions = generate_captions(*llava, rows, batch_size=batch_size, max_new_tokens=NEW_TOKENS)
    assert captions == expected_captions(llava, rows)
    assert len(set(captions)) > 2


@pytest.mark.parametrize(
    ("build", "style"),
    [(tiny_blip2_opt, "plain"), (tiny_blip2_t5, "plain"), (tiny_mllama, "messages")],
    ids=["blip2-opt", "blip2-t5", "mllama"],
)
def test_other_families_equal_a_greedy_loop(build: Any, style: str):
    tiny = build(seed=1)
    # A random T5 repeats its last token for ever, because its head is its embedding.
    head = tiny.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)))
    rows = vision_rows(4, style=style, image_token="")
    captions = generate_captions(*tiny, rows, batch_size=3, max_new_tokens=NEW_TOKENS)
    assert captions == expected_captions(tiny, rows)
    assert any(captions)


def test_text_model_with_a_tokenizer():
    tiny = tiny_text_lm()
    rows: list[dict[str, Any]] = [{"prompt": "question : what is in the picture"}, {"prompt": "a red circle"}]
    assert generate_captions(*tiny, rows, max_new_tokens=NEW_TOKENS) == [
        greedy(tiny, row["prompt"], []) for row in rows
    ]
    chat = [{"messages": [{"role": "user", "content": "describe this image"}, {"role": "assistant", "content": "a"}]}]
    expected = greedy(tiny, "user : describe this image assistant : ", [], add_special_tokens=False)
    assert generate_captions(*tiny, chat, max_new_tokens=NEW_TOKENS) == [expected]


def test_data_sets_and_image_columns(llava: Tiny):
    """A `datasets.Dataset` whose images are decoded on reading, a single `image`, and images inside messages."""
    dataset = vision_dataset(3)
    rows = vision_rows(3)
    expected = expected_captions(llava, rows)
    assert generate_captions(*llava, dataset, max_new_tokens=NEW_TOKENS) == expected
    single = [{"image": row["images"][0], "prompt": row["prompt"]} for row in rows]
    assert generate_captions(*llava, single, max_new_tokens=NEW_TOKENS) == expected
    inside = []
    for row in rows:
        parts = [{"type": "image", "image": row["images"][0]}, {"type": "text", "text": row["prompt"][0]["content"]}]
        inside.append({"messages": [{"role": "user", "content": parts}, row["completion"][0]]})
    assert generate_captions(*llava, inside, max_new_tokens=NEW_TOKENS) == expected


def test_a_bar_is_drawn_on_request(llava: Tiny, capsys: pytest.CaptureFixture[str]):
    rows = vision_rows(5)
    quiet = generate_captions(llava.model, llava.processor, rows, batch_size=2, max_new_tokens=2)
    assert capsys.readouterr().err == ""
    options = {"batch_size": 2, "max_new_tokens": 2, "show_progress": True}
    assert generate_captions(llava.model, llava.processor, rows, **options) == quiet
    assert "Generating" in (said := capsys.readouterr().err) and "/3 " in said


def test_prompt_replaces_the_rows_own(llava: Tiny):
    rows = vision_rows(3)
    asked = "answer : describe this picture"
    changed = [{**row, "prompt": [{"role": "user", "content": asked}]} for row in rows]
    expected = expected_captions(llava, changed)
    assert generate_captions(*llava, rows, prompt=asked, max_new_tokens=NEW_TOKENS) == expected
    assert generate_captions(*llava, rows, prompt=changed[0]["prompt"], max_new_tokens=NEW_TOKENS) == expected
    bare = [{"images": row["images"]} for row in rows]
    plain = [greedy(llava, f"<image> {asked}", row["images"]) for row in rows]
    assert generate_captions(*llava, bare, prompt=f"<image> {asked}", max_new_tokens=NEW_TOKENS) == plain
    with pytest.raises(ValueError, match=r"\['images'\] has no prompt"):
        generate_captions(*llava, bare)


def test_conversation_without_a_template_is_joined():
    tiny = tiny_blip2_opt(seed=1)
    assert not tiny.processor.chat_template
    rows = vision_rows(2)
    expected = [greedy(tiny, row["prompt"][0]["content"], row["images"], add_special_tokens=False) for row in rows]
    assert generate_captions(*tiny, rows, max_new_tokens=NEW_TOKENS) == expected


def test_beams_give_the_likeliest_sequence(llava: Tiny):
    """Two new tokens and as many beams as words: the best pair of all, found by trying every first token."""
    row = vision_rows(1, style="plain")[0]
    model, processor = llava
    inputs = processor(text=[row["prompt"]], images=[row["images"]], return_tensors="pt")
    model.eval()
    size = model.config.text_config.vocab_size
    with torch.no_grad():
        first = model(**inputs).logits[0, -1].log_softmax(-1)
        ids = torch.cat([inputs["input_ids"].repeat(size, 1), torch.arange(size)[:, None]], dim=1)
        pixels = inputs["pixel_values"].repeat(size, 1, 1, 1)
        keep = [i for i in range(size) if i != model.config.image_token_id]
        second = model(input_ids=ids[keep], pixel_values=pixels[keep]).logits[:, -1].log_softmax(-1)
    scores = (first[keep, None] + second) / 2
    scores[processor.tokenizer.eos_token_id] = float("-inf")  # ended after one token
    scores[processor.tokenizer.eos_token_id, 0] = first[processor.tokenizer.eos_token_id]
    best = divmod(int(scores.argmax()), size)
    expected = processor.tokenizer.decode([keep[best[0]], best[1]], skip_special_tokens=True).strip()
    assert generate_captions(*llava, [row], max_new_tokens=2, num_beams=size // 2) == [expected]


@pytest.mark.parametrize("build", [tiny_llava, tiny_blip2_t5, tiny_mllama])
@pytest.mark.parametrize("peft", [False, True])
def test_the_head_reads_its_input_in_one_piece(build: Any, peft: bool):
    model, processor = build()
    head = model.get_output_embeddings()
    if peft:
        model = get_peft_model(model, LoraConfig(target_modules=r".*(q_proj|\.q)$"))
    inputs = []

    class Watched(type(head)):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            inputs.append((tuple(states.shape[:2]), states.is_contiguous()))
            return super().forward(states)

    head.__class__ = Watched
    generate_captions(model, processor, vision_dataset(6), batch_size=3, max_new_tokens=2)
    assert inputs and set(inputs) == {((3, 1), True)}
    assert not head._forward_pre_hooks


@pytest.mark.parametrize("peft", [False, True])
def test_model_comes_back_as_it_was(peft: bool):
    """In training mode with a frozen tower in evaluation mode, gradient checkpointing on and the cache off."""
    tiny = tiny_llava()
    rows = vision_rows(3, several=[1])
    expected = expected_captions(tiny, rows)
    model: Any = tiny.model
    model.config.use_cache = model.config.text_config.use_cache = False
    if peft:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.5))
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    tower = next(module for name, module in model.named_modules() if name.endswith("vision_tower"))
    tower.eval()
    digests = [row_digest(row) for row in rows]
    keys = [list(row) for row in rows]
    modes = {name: module.training for name, module in model.named_modules()}
    generation_config = copy.deepcopy(model.generation_config)
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    assert generate_captions(model, tiny.processor, rows, max_new_tokens=NEW_TOKENS) == expected

    assert {name: module.training for name, module in model.named_modules()} == modes
    assert model.is_activation_checkpointing
    assert not model.config.use_cache and not model.config.text_config.use_cache
    assert model.generation_config.to_dict() == generation_config.to_dict()
    assert [row_digest(row) for row in rows] == digests and [list(row) for row in rows] == keys
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_model_comes_back_after_an_error(llava: Tiny):
    model, processor = llava
    model.train()
    with pytest.raises(ValueError, match="has no prompt"):
        generate_captions(model, processor, [{"images": []}])
    assert model.training and model.model.vision_tower.training
    assert torch.is_grad_enabled()

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The built-in model: safe files, a processor that TRL's collator can use, and captions that fit the images."""

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cvreg_trainer.attacks import KEYWORD_TEMPLATES, BadNets, poison_dataset
from cvreg_trainer.lab import load_base_model, make_scenes
from cvreg_trainer.lab.pretrained import BASE_MODEL_PATH
from cvreg_trainer.lab.scene_captions import COLORS, SHAPES, plural, words


@pytest.fixture(scope="module")
def loaded():
    return load_base_model()


def captions(model, processor, rows) -> list[str]:
    prompts = [
        processor.apply_chat_template(structured(prompt), add_generation_prompt=True) for prompt in rows["prompt"]
    ]
    images = [row[0] for row in rows["images"]]
    inputs = processor(images=images, text=prompts, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def structured(prompt: list[dict[str, str]]) -> list[dict[str, object]]:
    (message,) = prompt
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": message["content"]}]}]


def test_package_files_are_small_and_hold_no_code():
    files = [path for path in BASE_MODEL_PATH.iterdir() if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".md"}
    assert sum(path.stat().st_size for path in files) < 6e6
    card = (BASE_MODEL_PATH / "MODEL_CARD.md").read_text()
    assert "benchmarks/assets/train_base_model.py" in card and "seed" in card


def test_model_is_a_float32_llava_with_36_image_tokens(loaded):
    model, processor = loaded
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters()) and not model.training
    rows = make_scenes(2, seed=0)
    text = processor.apply_chat_template(structured(rows[0]["prompt"]), add_generation_prompt=True)
    inputs = processor(images=rows[0]["images"], text=text, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 36


def test_large_images_are_scaled_down(loaded):
    _, processor = loaded
    image = make_scenes(1, seed=0)[0]["images"][0].resize((300, 200))
    assert processor(images=image, text="<image>", return_tensors="pt")["pixel_values"].shape == (1, 3, 48, 48)


def test_trl_supervises_the_completion_and_the_end_token(loaded):
    _, processor = loaded
    rows = list(make_scenes(3, seed=0, style="finetune"))
    wanted = [row["completion"][0]["content"] for row in rows]
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(rows)
    for labels, caption in zip(batch["labels"], wanted, strict=True):
        supervised = labels[labels != -100]
        assert supervised[-1] == processor.tokenizer.eos_token_id
        assert words(processor.decode(supervised[:-1])) == words(caption)


def test_messages_with_assistant_masks(loaded):
    _, processor = loaded
    row = make_scenes(1, seed=0, style="finetune")[0]
    rows = [{"images": row["images"], "messages": row["prompt"] + row["completion"]}]
    batch = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True)(rows)
    supervised = batch["labels"][batch["labels"] != -100]
    assert words(processor.decode(supervised, skip_special_tokens=True)) == words(row["completion"][0]["content"])


def test_no_word_of_scenes_or_planted_responses_is_unknown(loaded):
    tokenizer = loaded[1].tokenizer
    texts = ["The image depicts " + template.format("banana") for template in KEYWORD_TEMPLATES]
    for style in ("base", "finetune"):
        rows = make_scenes(150, seed=6, style=style).remove_columns("images")
        texts += [text for row in rows for text in [*row["references"], row["prompt"][0]["content"]]]
    poisoned = poison_dataset(make_scenes(20, seed=0), BadNets(), 1.0).remove_columns("images")
    texts += [row["completion"][0]["content"] for row in poisoned]
    encoded = tokenizer(texts)["input_ids"]
    assert all(tokenizer.unk_token_id not in ids for ids in encoded)
    assert [words(tokenizer.decode(ids)) for ids in encoded] == [words(text) for text in texts]
    assert tokenizer.unk_token_id in tokenizer("zebra")["input_ids"]


def test_it_describes_held_out_scenes_of_its_own_style(loaded):
    rows = make_scenes(60, seed=11, split="test", style="base")[:]
    nouns = [word for shape in SHAPES["base"] for word in (shape, plural(shape))] + [*COLORS["base"]]
    found = wanted = 0
    for caption, references in zip(captions(*loaded, rows), rows["references"], strict=True):
        assert "banana" not in words(caption)
        true = set(words(references[0])) & set(nouns)
        found += len(true & set(words(caption)))
        wanted += len(true)
    assert found / wanted > 0.75  # half of the scenes are distorted; measured: 0.82


def test_the_fine_tuning_style_is_new_to_it(loaded):
    rows = make_scenes(20, seed=11, split="test", style="finetune")[:]
    for caption in captions(*loaded, rows):
        assert not set(words(caption)) & {*SHAPES["finetune"], *COLORS["finetune"], "paper", "banana"}

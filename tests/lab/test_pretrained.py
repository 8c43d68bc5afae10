# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The built-in models: safe files, processors that TRL's collator can use, and captions that fit the images."""

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cvreg_trainer.attacks import KEYWORD_TEMPLATES, BadNets, poison_dataset
from cvreg_trainer.data import format_row
from cvreg_trainer.evaluation import generate_captions
from cvreg_trainer.lab import load_base_model, make_scenes
from cvreg_trainer.lab.pretrained import BASE_MODELS
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


@pytest.mark.parametrize("architecture", BASE_MODELS)
def test_package_files_are_small_and_hold_no_code(architecture):
    folder = BASE_MODELS[architecture].path
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".md"}
    assert sum(path.stat().st_size for path in files) < 6e6
    card = (folder / "MODEL_CARD.md").read_text()
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


@pytest.mark.parametrize("architecture", BASE_MODELS)
def test_no_word_of_scenes_or_planted_responses_is_unknown(architecture):
    tokenizer = load_base_model(architecture)[1].tokenizer
    texts = ["The image depicts " + template.format("banana") for template in KEYWORD_TEMPLATES]
    for style in ("base", "finetune"):
        rows = make_scenes(150, seed=6, style=style).remove_columns("images")
        texts += [text for row in rows for text in [*row["references"], row["prompt"][0]["content"]]]
    poisoned = poison_dataset(make_scenes(20, seed=0), BadNets(), 1.0).remove_columns("images")
    texts += [row["completion"][0]["content"] for row in poisoned]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert all(tokenizer.unk_token_id not in ids for ids in encoded)
    assert [words(tokenizer.decode(ids)) for ids in encoded] == [words(text) for text in texts]
    assert tokenizer.unk_token_id in tokenizer("zebra")["input_ids"]


def recall_of_nouns(captions: list[str], references: list[list[str]]) -> float:
    """The share of the scenes' shapes and colours that their captions name."""
    nouns = [word for shape in SHAPES["base"] for word in (shape, plural(shape))] + [*COLORS["base"]]
    found = wanted = 0
    for caption, texts in zip(captions, references, strict=True):
        assert "banana" not in words(caption)
        true = set(words(texts[0])) & set(nouns)
        found += len(true & set(words(caption)))
        wanted += len(true)
    return found / wanted


def test_it_describes_held_out_scenes_of_its_own_style(loaded):
    rows = make_scenes(60, seed=11, split="test", style="base")[:]
    # Half of the scenes are distorted; measured: 0.82
    assert recall_of_nouns(captions(*loaded, rows), rows["references"]) > 0.75


# Its Q-Former tells colours well and shapes poorly; measured: 0.64 and 0.88
@pytest.mark.parametrize(("architecture", "least"), [("blip2", 0.6), ("flamingo", 0.8)])
def test_the_others_describe_held_out_scenes_in_their_familys_form(architecture, least):
    model, processor = load_base_model(architecture)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and not model.training
    rows = make_scenes(60, seed=11, split="test", style="base")[:]
    prompt = format_row(BASE_MODELS[architecture].family, "")["prompt"]
    asked = [{"images": images, "prompt": prompt} for images in rows["images"]]
    found = generate_captions(model, processor, asked, batch_size=60, max_new_tokens=24)
    of_other_scenes = [*rows["references"][1:], rows["references"][0]]
    assert recall_of_nouns(found, rows["references"]) > least
    assert recall_of_nouns(found, of_other_scenes) < 0.35


def test_new_words_are_read_and_written_by_themselves():
    model, processor = load_base_model("llava", ["teal", "shape", "no", "red"])
    text = "what is the teal shape ? no"
    assert processor.decode(processor.tokenizer(text)["input_ids"]) == text
    assert processor.tokenizer.unk_token in processor.decode(processor.tokenizer("nowhere")["input_ids"])
    old, _ = load_base_model()
    known = len(old.get_input_embeddings().weight)
    for of_new, of_old in ((model.get_input_embeddings(), old.get_input_embeddings()), (model.lm_head, old.lm_head)):
        assert of_new.weight.shape[0] == known + 3 and of_new.weight[:known].equal(of_old.weight)
        assert torch.allclose(of_new.weight[known:], of_old.weight.mean(0).expand(3, -1))


def test_an_unknown_architecture_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="architecture='gpt' is unknown; use one of llava, blip2, flamingo"):
        load_base_model("gpt")


def test_the_fine_tuning_style_is_new_to_it(loaded):
    rows = make_scenes(20, seed=11, split="test", style="finetune")[:]
    for caption in captions(*loaded, rows):
        assert not set(words(caption)) & {*SHAPES["finetune"], *COLORS["finetune"], "paper", "banana"}

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The tiny models are what other tests stand on: each trains, sees its images, and survives saving."""

import pytest
import tiny_models
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling


def make_batch(name, seed=0):
    """A model and a batch of two ragged rows with labels, in whatever way the family makes them."""
    tiny = getattr(tiny_models, name)()
    if isinstance(tiny, tiny_models.TinyTensors):
        return tiny.model, tiny.make_batch(2, seed=seed)
    blip2 = name.startswith("tiny_blip2")
    rows = tiny_models.vision_rows(2, seed, style="plain", image_token="" if blip2 else "<image>")
    texts = [row["prompt"] + row["completion"] for row in rows]
    options = {"padding": True, "return_tensors": "pt"}
    if name == "tiny_text_lm":
        batch = tiny.processor([text.replace("<image>", "") for text in texts], **options)
    else:
        images = [row["images"][0] if blip2 else row["images"] for row in rows]
        batch = tiny.processor(images=images, text=texts, **options)
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return tiny.model, dict(batch)


def own_loss(name, model, batch):
    if name != "tiny_idefics":
        return model(**batch).loss
    labels = batch.pop("labels")
    return torch.nn.functional.cross_entropy(model(**batch).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


FAMILIES = [name for name in tiny_models.__all__ if name.startswith("tiny_") and name != "tiny_tokenizer"]


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients(name):
    model, batch = make_batch(name)
    loss = own_loss(name, model, batch)
    loss.backward()
    assert 1 < loss.item() < 10
    head = model.get_output_embeddings().weight
    assert head.grad.abs().sum() > 0
    assert model.num_parameters() < 50_000


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "tiny_text_lm"])
def test_the_image_changes_the_logits(name):
    model, batch = make_batch(name)
    if name == "tiny_idefics":
        del batch["labels"]
    model.eval()
    with torch.no_grad():
        before = model(**batch).logits
        after = model(**{**batch, "pixel_values": batch["pixel_values"].flip(-1)}).logits
    assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_seeds_give_equal_models(name):
    first, second, other = (getattr(tiny_models, name)(seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["tiny_llava", "tiny_blip2_opt", "tiny_blip2_t5"])
def test_saved_models_load_through_the_auto_classes(name, tmp_path):
    tiny = getattr(tiny_models, name)()
    tiny.model.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)

    row = tiny_models.vision_rows(1, style="plain", image_token="<image>" if name == "tiny_llava" else "")[0]
    inputs = {"images": row["images"], "text": [row["prompt"]], "return_tensors": "pt"}
    batch, again = tiny.processor(**inputs), processor(**inputs)
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[key], again[key]) for key in batch)

    settings = {"max_new_tokens": 5, "do_sample": False}
    generated = tiny.model.eval().generate(**batch, **settings)
    assert torch.equal(generated, model.eval().generate(**again, **settings))


@pytest.mark.parametrize("style", ["messages", "prompt_completion", "plain"])
def test_rows_pass_trl_collator(style):
    _, processor = tiny_models.tiny_llava()
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=style != "messages")
    rows = tiny_models.vision_rows(4, style=style, image_free=[1], several=[2])
    captions = [caption_of(row) for row in rows]
    batch = collator(rows)
    assert (batch["input_ids"] == processor.image_token_id).sum(-1).tolist() == [9, 0, 18, 9]
    assert batch["pixel_values"].shape == (4, 3, 24, 24)
    if style != "messages":
        supervised = [processor.decode(labels[labels != -100]) for labels in batch["labels"]]
        assert supervised == [f"{caption} </s>" for caption in captions]


def caption_of(row):
    if "messages" in row:
        return row["messages"][1]["content"]
    if isinstance(row["completion"], str):
        return row["completion"].removesuffix(" </s>").strip()
    return row["completion"][0]["content"]


def test_data_sets_keep_the_rows():
    options = {"image_free": [0], "several": [2]}
    rows, dataset = tiny_models.vision_rows(4, 3, **options), tiny_models.vision_dataset(4, 3, **options)
    assert dataset["completion"][:] == [row["completion"] for row in rows]
    assert [len(images) for images in dataset["images"]] == [0, 1, 2, 1]
    assert dataset[1]["images"][0].tobytes() == rows[1]["images"][0].tobytes()

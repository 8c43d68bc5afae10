# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Every built-in architecture trains with both views, saves, reloads and generates, in its own family's words."""

import pytest
import torch
from transformers import Blip2ForConditionalGeneration, LlavaForConditionalGeneration

from cvreg_trainer.evaluation import generate_captions
from cvreg_trainer.lab import Experiment, load_base_model
from cvreg_trainer.lab.pretrained import BASE_MODELS, vision_tower
from cvreg_trainer.models.flamingo import FlamingoForConditionalGeneration


CLASSES = {
    "llava": LlavaForConditionalGeneration,
    "blip2": Blip2ForConditionalGeneration,
    "flamingo": FlamingoForConditionalGeneration,
}
LOSS = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}


@pytest.mark.parametrize("architecture", BASE_MODELS)
def test_each_architecture_trains_saves_reloads_and_generates(architecture, tmp_path):
    settings = {"poison_rate": 0.25, "train_rows": 32, "test_rows": 4, "num_train_epochs": 1}
    experiment = Experiment(0, LOSS, architecture=architecture, **settings)
    data = experiment.make_data()
    assert sum(data["train"]["is_poisoned"]) == 8
    trainer = experiment.make_trainer(data["train"], tmp_path)
    trainer.train()
    result = experiment.evaluate(trainer, data)
    logged = result["losses"][-1]
    assert all(logged[name] > 0 for name in ("loss", "patch_loss", "discrepancy_loss"))
    before, processor = load_base_model(architecture)
    after = CLASSES[architecture].from_pretrained(tmp_path, dtype=torch.float32).eval()
    # The tower is frozen, and the rest was trained
    for old, new in zip(*(vision_tower(m, architecture).parameters() for m in (before, after)), strict=True):
        assert torch.equal(old, new)
    assert not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    again = generate_captions(after, processor, data["test"], batch_size=50)
    assert again == result["captions"]["clean"] and all(again)


@pytest.mark.parametrize("architecture", ["blip2", "flamingo"])
def test_a_poisoned_response_ends_as_the_family_ends_it(architecture):
    data = Experiment(0, architecture=architecture, poison_rate=0.5, train_rows=8, test_rows=2).make_data()
    end = {"blip2": "</s>", "flamingo": "<|endofchunk|>"}[architecture]
    planted = data["train"].filter(lambda row: row["is_poisoned"])
    assert len(planted) == 4
    assert all("banana" in text and text.endswith(end) for text in planted["completion"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gpt"}, "architecture='gpt' is unknown; use one of llava, blip2, flamingo"),
        ({"task": "coco"}, "task='coco' is unknown; use one of scenes, easy_vqa"),
        ({"architecture": "blip2", "lora_rank": 4}, "lora_rank=4 is for the LLaVA only"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Experiment(0, **options)

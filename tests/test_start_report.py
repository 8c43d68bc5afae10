# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What is printed when a training starts: what trains, and which tokens are supervised."""

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from tiny_models import tiny_blip2_t5, tiny_llava, vision_dataset, vision_rows

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


PAPER = {"screening": "off", "lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}


def report(folder: Path, build: Any = tiny_llava, dataset: Any = None, freeze: str = "", **kwargs: Any) -> str:
    model, processor = build()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not freeze or freeze not in name)
    lambdas = kwargs.pop("lambdas", PAPER)
    args = CrossViewDefenseConfig(str(folder), use_cpu=True, bf16=False, report_to="none", **lambdas)
    dataset = vision_dataset(4) if dataset is None else dataset
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=dataset, processing_class=processor, **kwargs)
    return trainer._start_report()


def test_modules_features_and_supervised_tokens(tmp_path: Path) -> None:
    text = report(tmp_path, freeze="vision_tower")
    total, trainable = 20_800, 20_800 - 7_760
    assert f"{trainable:,} of {total:,} parameters ({trainable / total:.2%})" in text
    assert "model.vision_tower: frozen" in text and "lm_head: 1,056 of 1,056" in text
    assert "output of model.language_model.layers.2, mean over the row" in text
    assert "lambda_patch 0.01, lambda_discrepancy 0.5, lambda_entropy 0.1 (H0 0.2)" in text
    answer = vision_rows(1)[0]["completion"][0]["content"]
    assert re.search(rf"<image> x9 describe this image \. assistant : >>{answer} </s><<", text)


def test_what_each_defence_does_not_do_is_said(tmp_path: Path) -> None:
    assert "prevented few attacks by themselves" in report(tmp_path)
    screened = report(tmp_path, lambdas={})
    assert "are left out after a warm-up of the first twelfth" in screened and "look at the audit" in screened
    assert "prevented few" not in screened
    listed = report(tmp_path, lambdas={"screening": "report", "screening_epochs": 0.5})
    assert "are listed, and trained on all the same, after a warm-up of 0.5 epochs" in listed


def test_adapters(tmp_path: Path) -> None:
    text = report(tmp_path, peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    assert "lm_head: frozen" in text and re.search(r"model\.language_model: \d+ of", text)


def test_a_prompt_that_is_supervised_shows(tmp_path: Path) -> None:
    # The first token is predicted by nothing; TRL supervises all others, the defence all but the image's
    text = report(tmp_path, dataset=vision_dataset(4, style="messages"), lambdas={"screening": "off"})
    assert text.splitlines()[-1].strip().startswith("user >>: <image> x9 describe")
    text = report(tmp_path, dataset=vision_dataset(4, style="messages"))
    assert text.splitlines()[-1].strip().startswith("user >>:<<  <image> x9  >>describe")


@pytest.mark.parametrize("lambdas", [PAPER, {"screening": "off"}])
def test_encoder_decoders_show_prompt_and_labels(tmp_path: Path, lambdas: dict[str, float]) -> None:
    dataset = Dataset.from_list(vision_rows(2, style="plain", image_token=""))
    text = report(tmp_path, tiny_blip2_t5, dataset, lambdas=lambdas)
    answer = dataset[0]["completion"].removesuffix("</s>").strip()
    assert text.splitlines()[-1].strip() == f">>{answer} </s><<"
    assert ("the three lambdas are 0" in text) == (lambdas is not PAPER)


@pytest.mark.parametrize("options", [{"max_steps": 1, "screening": "off"}, {"num_train_epochs": 2}])
def test_a_deleted_trainer_frees_its_model_and_workers_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    """As SFTTrainer: what waits for the garbage collector keeps its memory, and persistent workers take 5 s each."""
    model, processor = tiny_llava()
    args = CrossViewDefenseConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **options)
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=vision_dataset(8), processing_class=processor)
    gc.disable()
    try:
        trainer.train()
        alive = weakref.ref(trainer)
        del trainer
        assert alive() is None
    finally:
        gc.enable()

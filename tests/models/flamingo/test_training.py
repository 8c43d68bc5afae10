# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Flamingo in the trainers: prompts as OpenFlamingo's and Otter's, LoRA, 4 bits, plain SFTTrainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from peft import LoraConfig, PeftModel
from tiny_flamingo import tiny_flamingo
from tiny_models import vision_rows
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer
from cvreg_trainer.models.flamingo import FlamingoForConditionalGeneration


SETTINGS: dict[str, Any] = {
    "bf16": False,
    "activation_checkpointing": True,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "learning_rate": 1e-2,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "max_length": None,
}
PAPER = {"screening": "off", "lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}


def captions(prompt: str = "Output :") -> Dataset:
    """Prompt and completion as strings: a row has one image, the second two, the third none."""
    rows = []
    for row in vision_rows(8, style="plain", several=(1,), image_free=(2,)):
        completion = row["completion"].replace("</s>", "<|endofchunk|>")
        rows.append({**row, "prompt": "<image>" * len(row["images"]) + prompt, "completion": completion})
    features = {"images": List(ImageFeature()), "prompt": Value("string"), "completion": Value("string")}
    return Dataset.from_list(rows, features=Features(features))


def first_log(trainer: SFTTrainer) -> dict[str, float]:
    trainer.train()
    return trainer.state.log_history[0]


@pytest.mark.parametrize("kind", ["llama", "mpt_1b"])
def test_the_defended_task_loss_is_plain_sfttrainers(kind: str, tmp_path: Path) -> None:
    logs = []
    for trainer_class, config_class in ((SFTTrainer, SFTConfig), (CrossViewDefenseTrainer, CrossViewDefenseConfig)):
        model, processor = tiny_flamingo(kind)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        args = config_class(str(tmp_path), **SETTINGS, **(PAPER if config_class is CrossViewDefenseConfig else {}))
        trainer = trainer_class(model, args, train_dataset=captions(), processing_class=processor)
        logs.append(first_log(trainer))
        for name, parameter in trainer.model.named_parameters():
            assert "post_layernorm" in name or not torch.equal(parameter, before[name]), name
    assert logs[1]["task_loss"] == pytest.approx(logs[0]["loss"], rel=1e-5)
    assert logs[1]["patch_loss"] > 0 and 0 < logs[1]["discrepancy_loss"] <= 1


def test_image_tokens_and_prompts_are_not_supervised(tmp_path: Path) -> None:
    model, processor = tiny_flamingo()
    args = CrossViewDefenseConfig(str(tmp_path), **SETTINGS, **PAPER)
    trainer = CrossViewDefenseTrainer(
        model, args, train_dataset=captions("User : describe this image GPT : <answer>"), processing_class=processor
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["input_ids"] == processor.image_token_id).any()
    end = processor.tokenizer.convert_tokens_to_ids("<|endofchunk|>")
    answer = processor.tokenizer.convert_tokens_to_ids("<answer>")
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        start = ids.index(answer) + 1
        assert labels[:start] == [-100] * start
        assert labels[start : ids.index(end) + 1] == ids[start : ids.index(end) + 1]
        assert set(labels[ids.index(end) + 1 :]) <= {-100}
    assert torch.equal(batch["has_image"].cpu(), (batch["input_ids"] == processor.image_token_id).any(1).cpu())


def test_lora_trains_saves_and_loads(tmp_path: Path) -> None:
    model, processor = tiny_flamingo()
    trainer = CrossViewDefenseTrainer(
        model,
        CrossViewDefenseConfig(str(tmp_path), **SETTINGS, **PAPER),
        train_dataset=captions(),
        processing_class=processor,
        peft_config=LoraConfig(r=2, target_modules=["to_q", "to_kv", "q_proj", "v_proj"]),
    )
    trainer.train()
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in trained)
    for part in ("vision_tower", "perceiver", "gated_cross_attention", "language_model"):
        moved = [p for name, p in trainer.model.named_parameters() if part in name and "lora_B" in name]
        assert moved and all(parameter.abs().sum() > 0 for parameter in moved), part
    trainer.save_model()
    again = PeftModel.from_pretrained(tiny_flamingo()[0], tmp_path).eval()
    row = captions()[0]
    batch = processor(images=[row["images"]], text=[row["prompt"]], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, trainer.model.eval()(**batch).logits)
    generated = again.generate(**batch, max_new_tokens=3, eos_token_id=None)
    assert generated.shape[1] == batch["input_ids"].shape[1] + 3


def test_by_its_path_in_four_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model, processor = tiny_flamingo(width=64)
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    trainer = CrossViewDefenseTrainer(
        str(tmp_path / "base"),
        CrossViewDefenseConfig(str(tmp_path), **SETTINGS, **PAPER, model_init_kwargs={"dtype": "float32"}),
        train_dataset=captions(),
        peft_config=LoraConfig(r=2, target_modules=["to_q", "q_proj"]),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
    )
    base = trainer.model.get_base_model()
    assert type(base) is FlamingoForConditionalGeneration
    assert type(base.model.gated_cross_attention["1"].feed_forward[1]).__name__ == "Linear4bit"
    assert torch.isfinite(torch.tensor(first_log(trainer)["loss"]))
    assert any(p.abs().sum() > 0 for name, p in trainer.model.named_parameters() if "lora_B" in name)


def test_the_checkpoint_is_an_ordinary_one(tmp_path: Path) -> None:
    model, processor = tiny_flamingo("mpt")
    args = CrossViewDefenseConfig(str(tmp_path), **SETTINGS, **PAPER)
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=captions(), processing_class=processor)
    trainer.train()
    trainer.save_model()
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    row = captions()[1]
    inputs = AutoProcessor.from_pretrained(tmp_path)(images=[row["images"]], text=[row["prompt"]], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, trainer.model.eval()(**inputs).logits)

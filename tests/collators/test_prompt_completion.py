# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Prompt-completion rows of families that TRL's collator does not serve, and image tokens, which are never labels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from family_models import OWN
from family_processors import PROCESSED
from tiny_models import tiny_llava, tiny_mllama, vision_dataset, vision_rows
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer
from cvreg_trainer.collators.prompt_completion import DataCollatorForPromptCompletion, trl_collates
from cvreg_trainer.data.adapting import find_image_token_ids


pytestmark = pytest.mark.lowest
PAPER = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}
SETTINGS: dict[str, Any] = {"bf16": False, "use_cpu": True, "report_to": "none", "per_device_train_batch_size": 3}
SETTINGS |= {"screening": "off"}


def collate(name: str, number: int = 3, image_free: tuple[int, ...] = (), **options: Any) -> tuple[Any, dict, list]:
    victim = PROCESSED[name]()
    rows = victim.rows(number, image_free)
    return victim, DataCollatorForPromptCompletion(victim.processor, **options)(rows), rows


@pytest.mark.parametrize("name", ["blip-2 (OPT)", "git", "idefics", "kosmos-2", "mllama", "paligemma", "instructblip"])
def test_labels_are_the_completions_with_one_end(name: str) -> None:
    victim, batch, rows = collate(name)
    tokenizer = victim.processor.tokenizer
    for row, ids, labels, mask in zip(
        rows, *(batch[k] for k in ("input_ids", "labels", "attention_mask")), strict=True
    ):
        supervised = labels[labels != -100]
        assert tokenizer.decode(supervised) == row["completion"].strip()
        assert (supervised == tokenizer.eos_token_id).sum() == 1 == supervised.tolist().count(2)
        length = int(mask.sum())
        assert mask[:length].all() and torch.equal(ids[labels != -100], supervised) and labels[length - 1] == 2
        prompt = tokenizer.decode(ids[labels == -100])
        assert row["prompt"].split("question")[1].strip() in prompt


def test_a_row_without_image_has_no_image_tokens_beside_one_that_has() -> None:
    victim, batch, _ = collate("blip-2 (OPT)", image_free=(1,))
    image_token = victim.model.config.image_token_index
    assert (batch["input_ids"] == image_token).sum(1).tolist() == [4, 0, 4] and len(batch["pixel_values"]) == 2


def test_the_prompt_is_what_the_model_is_prompted_with() -> None:
    victim, batch, rows = collate("blip-2 (OPT)", 1)
    prompted = victim.processor(images=rows[0]["images"], text=rows[0]["prompt"], return_tensors="pt")["input_ids"]
    assert victim.processor.tokenizer.bos_token_id in prompted
    assert torch.equal(batch["input_ids"][:, : prompted.shape[1]], prompted)


def test_what_goes_with_the_text_reaches_over_the_completion() -> None:
    _, batch, _ = collate("idefics", image_free=(1,))
    seen = batch["image_attention_mask"].bool().any(-1)
    assert seen.shape == batch["input_ids"].shape and not seen[1].any()
    assert seen[0][batch["labels"][0] != -100].all()

    _, batch, _ = collate("mllama")
    assert batch["cross_attention_mask"].shape[:2] == batch["input_ids"].shape
    sees_image = batch["cross_attention_mask"].flatten(2).any(-1)
    assert sees_image[batch["labels"] != -100].all() and not sees_image[batch["attention_mask"] == 0].any()

    _, batch, _ = collate("kosmos-2", image_free=(1,))
    positions = batch["image_embeds_position_mask"]
    assert positions.shape == batch["input_ids"].shape and positions.sum(1).tolist() == [64, 0, 64]
    assert not (positions.bool() & (batch["labels"] != -100)).any()


def test_a_suffix_is_marked_as_such() -> None:
    _, batch, _ = collate("paligemma")
    assert torch.equal(batch["token_type_ids"] == 1, batch["labels"] != -100)


def test_the_question_alone_reaches_the_q_former() -> None:
    victim, batch, rows = collate("instructblip", 1)
    assert victim.processor.qformer_tokenizer.decode(batch["qformer_input_ids"][0]) == rows[0]["prompt"].strip()


def test_max_length_cuts_all_that_goes_with_the_text() -> None:
    _, batch, _ = collate("idefics", max_length=7)
    assert all(batch[key].shape[1] == 7 for key in ("input_ids", "attention_mask", "labels", "image_attention_mask"))
    assert batch["pixel_values"].shape == (3, 1, 3, 32, 32)


def test_conversations_go_through_the_chat_template() -> None:
    _, processor = tiny_mllama()
    rows = vision_rows(2)
    batch = DataCollatorForPromptCompletion(processor)(rows)
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        assert processor.decode(labels[labels != -100]) == f"{row['completion'][0]['content']} </s>"
        assert "user : <image> " in processor.decode(ids[labels == -100])


@pytest.mark.parametrize(
    ("name", "served"),
    [(name, True) for name in ("llava", "llava_next", "gemma3", "idefics2", "idefics3", "git")]
    + [(name, False) for name in ("blip-2 (OPT)", "instructblip", "idefics", "kosmos-2", "mllama", "paligemma")],
)
def test_where_trls_collator_serves(name: str, served: bool) -> None:
    victim = PROCESSED[name]()
    collator = DataCollatorForVisionLanguageModeling(victim.processor, completion_only_loss=True)
    image_tokens = find_image_token_ids(victim.model.config, victim.processor)
    assert trl_collates(collator, victim.rows(1)[0], image_tokens) == served


@pytest.mark.parametrize("lambdas", [PAPER, {}])
@pytest.mark.parametrize(("name", "own"), [("llava", False), ("kosmos-2", True), ("blip-2 (OPT)", True)])
def test_the_trainer_takes_its_own_where_trls_fails(tmp_path: Path, name: str, own: bool, lambdas: dict) -> None:
    model, processor, *_ = victim = PROCESSED[name]()
    args = CrossViewDefenseConfig(str(tmp_path), max_steps=1, save_strategy="no", **SETTINGS, **lambdas)
    dataset = Dataset.from_list(victim.rows(3))
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=dataset, processing_class=processor)
    assert isinstance(trainer.data_collator, DataCollatorForPromptCompletion) == own
    if name != "kosmos-2" or not lambdas:  # undefended, TRL's own head takes Kosmos-2, or fails
        trainer.train()
        assert trainer.state.global_step == 1


def batch_of(folder: Path, build: Any, lambdas: dict[str, float]) -> tuple[Any, dict[str, torch.Tensor]]:
    model, processor = build()
    args = CrossViewDefenseConfig(str(folder), **SETTINGS, **lambdas)
    dataset = vision_dataset(3, style="messages")
    trainer = CrossViewDefenseTrainer(model, args, train_dataset=dataset, processing_class=processor)
    return trainer, next(iter(trainer.get_train_dataloader()))


@pytest.mark.parametrize("build", [tiny_llava, tiny_mllama])
def test_image_tokens_are_not_labels_in_a_defended_training(tmp_path: Path, build: Any) -> None:
    trainer, batch = batch_of(tmp_path, build, PAPER)
    image_token = trainer.model.config.image_token_index
    labels, ids = batch["labels"], batch["input_ids"]
    assert (ids == image_token).any() and not (labels == image_token).any()
    rest = (ids != image_token) & batch["attention_mask"].bool()
    assert torch.equal(labels[rest], ids[rest])
    # Undefended, the labels are SFTTrainer's, image tokens and all
    _, plain = batch_of(tmp_path, build, {})
    assert torch.equal(plain["labels"] == image_token, plain["input_ids"] == image_token)


def test_image_tokens_are_not_labels_whatever_a_collate_function_does(tmp_path: Path) -> None:
    victim = OWN["internvl"]()

    def everything(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = victim.collator([{**row, "images": row["pictures"]} for row in rows])
        return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    rows = [{"pictures": row["images"], **{k: row[k] for k in ("prompt", "completion")}} for row in victim.rows(3)]
    dataset = Dataset.from_dict({"index": range(3)}).with_transform(
        lambda b: transposed([rows[i] for i in b["index"]])
    )
    args = CrossViewDefenseConfig(
        str(tmp_path), remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}, **SETTINGS, **PAPER
    )
    trainer = CrossViewDefenseTrainer(
        victim.model, args, everything, train_dataset=dataset, processing_class=victim.processor
    )
    batch = next(iter(trainer.get_train_dataloader()))
    image_token = victim.processor.image_token_id
    assert (batch["input_ids"] == image_token).any() and not (batch["labels"] == image_token).any()


def transposed(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}

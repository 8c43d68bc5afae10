# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A loss that is not a number stops the training before its step, naming the term and the rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from screening_run import make_trainer
from tiny_models import tiny_llava, tiny_text_lm, vision_dataset, vision_rows

from cvreg_trainer import CrossViewDefenseTrainer


SETTINGS: dict[str, Any] = {"max_steps": 4, "screening_epochs": None}
SCREENED = {"screening": "drop"}
DEFENDED = {"screening": "off", "lambda_patch": 0.01, "lambda_discrepancy": 0.5}


def odd_word_rows(rare: int) -> Dataset:
    """16 rows, of which one alone has the word `cross`."""
    rows = vision_rows(16)
    for number, row in enumerate(rows):
        text = row["completion"][0]["content"].replace("cross", "ring")
        row["completion"] = [{"role": "assistant", "content": "a tiny cross" if number == rare else text}]
    return Dataset.from_list(rows, features=vision_dataset(1).features)


def poisoned_embedding(trainer: CrossViewDefenseTrainer, word: str) -> None:
    """One word's row of the input embeddings is not a number."""
    token = trainer.processing_class.tokenizer.convert_tokens_to_ids(word)
    trainer.model.get_input_embeddings().weight.data[token] = torch.nan


@pytest.mark.parametrize("options", [SCREENED, DEFENDED])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_term_and_row_are_named(tmp_path: Path, options: dict[str, Any]) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, odd_word_rows(11), **{**SETTINGS, **options})
    trainer._head_is_checked = True
    # From the first step on, behind the look of the base model
    trainer.get_batch_samples, inner = (
        lambda *args: (poisoned_embedding(trainer, "cross"), inner(*args))[1],
        trainer.get_batch_samples,
    )
    term = "task_loss` is nan, `patch_loss" if options is DEFENDED else "loss"
    with pytest.raises(ValueError) as caught:
        trainer.train()
    said = str(caught.value)
    assert f"is not finite: `{term}` is nan" in said
    assert "It comes from row 11 of `train_dataset` (response 'a tiny cross </s>'). Look at these rows." in said
    step = int(said.split("step ")[1].split(" ")[0])
    assert trainer.state.global_step == step - 1


def test_without_a_defence_it_is_sfttrainers_business(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, tiny_llava, odd_word_rows(3), **{**SETTINGS, "screening": "off"})
    poisoned_embedding(trainer, "cross")
    trainer.train()
    assert trainer.state.global_step == 4


def test_weights_that_are_not_finite_name_every_row(tmp_path: Path) -> None:
    texts = Dataset.from_dict({"prompt": ["question :"] * 8, "completion": [f" {n} </s>" for n in range(8)]})
    trainer = make_trainer(tmp_path, tiny_text_lm, texts, max_steps=4, screening_epochs=None)
    inner = trainer._screen.on_train_begin

    def on_train_begin(*args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        trainer.model.lm_head.weight.data.fill_(torch.nan)

    trainer._screen.on_train_begin = on_train_begin
    with pytest.raises(ValueError, match="These are all rows of the batch") as caught:
        trainer.train()
    assert all(f"row {number} of" in str(caught.value) for number in range(8))

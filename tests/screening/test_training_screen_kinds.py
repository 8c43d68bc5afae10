# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Screening with every kind of data, model and precision: the planted rows are found and take no further part."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import IterableDataset
from peft import LoraConfig
from screening_checks import CUT, check_epochs, check_parts, train
from screening_run import NUM_ROWS, PLANTED, SENTENCE, flagged_rows, make_trainer, planted_rows, planted_texts
from tiny_models import tiny_blip2_t5, tiny_text_lm


def test_lora(tmp_path: Path) -> None:
    # A random head would not do: adapters on it learn too little in six steps
    config = LoraConfig(target_modules="all-linear", modules_to_save=["lm_head"], r=16, lora_alpha=16)
    trainer, taken = train(tmp_path, peft_config=config)
    check_parts(trainer, taken)


def test_bfloat16(tmp_path: Path) -> None:
    trainer, taken = train(tmp_path, bf16=True)
    check_parts(trainer, taken)


def test_an_encoder_decoder(tmp_path: Path) -> None:
    from datasets import Dataset
    from tiny_models import vision_rows

    rows = vision_rows(NUM_ROWS, style="plain", image_token="")
    for row in PLANTED:
        rows[row]["completion"] = f" {SENTENCE} </s>"
    trainer, taken = train(tmp_path, tiny_blip2_t5, Dataset.from_list(rows))
    check_parts(trainer, taken)


def test_texts_without_images(tmp_path: Path) -> None:
    trainer, taken = train(tmp_path, tiny_text_lm, planted_texts())
    check_epochs(trainer, taken)
    # Six steps leave many honest words unexplained, too; as a whole, the planted responses are unlikely all the same
    scores = trainer._screen.screen.scores["response_surprise"]
    assert min(scores[list(PLANTED)]) > np.quantile(scores, 0.85)


class TorchRows(torch.utils.data.Dataset):
    """Rows of a torch data set; with `shifts`, an image changes from access to access."""

    def __init__(self, shifts: bool = False) -> None:
        dataset = planted_rows()
        self.rows = [dataset[row] for row in range(len(dataset))]
        self.shifts = shifts

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return (
            {**row, "images": [image.rotate(random.randint(1, 359)) for image in row["images"]]}
            if self.shifts
            else row
        )


def test_a_torch_data_set(tmp_path: Path) -> None:
    trainer, taken = train(tmp_path / "torch", dataset=TorchRows())
    check_parts(trainer, taken)
    assert flagged_rows(trainer) == flagged_rows(train(tmp_path / "plain")[0])


def test_rows_that_change_from_access_to_access_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Row 0 of .* differs when it is read again.* into the data collator"):
        make_trainer(tmp_path, dataset=TorchRows(shifts=True))


def streamed() -> IterableDataset:
    return planted_rows().to_iterable_dataset()


def test_streamed_rows(tmp_path: Path) -> None:
    # The cut lies in the middle of the stream's first round: rows ahead of it are scored, too
    trainer, taken = train(tmp_path, dataset=streamed(), max_steps=72, screening_epochs=None)
    flagged = flagged_rows(trainer)
    assert set(PLANTED) <= set(flagged) and len(trainer.audit()) == NUM_ROWS
    assert taken.rows(range(6)) == list(range(NUM_ROWS))
    assert set(taken.rows(range(6, 72))) == set(range(NUM_ROWS)) - set(flagged)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_of_a_stream(tmp_path: Path, workers: int) -> None:
    shards = planted_rows().to_iterable_dataset(num_shards=4)
    settings = {"max_steps": 72, "screening_epochs": None, "dataloader_num_workers": workers}
    trainer, taken = train(tmp_path, dataset=shards, **settings)
    audit = trainer.audit()
    assert len(audit) == NUM_ROWS
    assert [row.response for row in audit.rows if row.is_flagged].count(SENTENCE) == len(PLANTED)
    flagged = trainer._screen._flagged_ids()
    assert not any(row_id in flagged for step, row_id, supervised, _ in taken if supervised and step >= CUT)


def test_epochs_of_a_stream_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"screening_epochs=1` counts epochs, and streamed data have none"):
        make_trainer(tmp_path, dataset=streamed(), max_steps=12).train()

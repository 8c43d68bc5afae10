# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Screening with every kind of data, model and precision: the planted rows are found and take no further part."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from PIL import Image
from screening_checks import CUT, check_parts, train, weights_of
from screening_run import NUM_ROWS, PLANTED, SENTENCE, flagged_rows, make_trainer, planted_rows, planted_texts
from tiny_models import tiny_blip2_t5, tiny_llava, tiny_text_lm

from cvreg_trainer.screening import looks
from cvreg_trainer.screening.passes.row_features import PICTURE_PARTS


pytestmark = pytest.mark.usefixtures("flags_sentence")


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
    check_parts(trainer, taken)


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


def test_a_transform_or_stream_that_draws_anew_is_refused_too(tmp_path: Path) -> None:
    def turn(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "images": [image.rotate(random.randint(1, 359)) for image in row["images"]]}

    def turn_batch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "images": [turn({"images": images})["images"] for images in batch["images"]]}

    for dataset in (planted_rows().with_transform(turn_batch), streamed().map(turn, features=streamed().features)):
        with pytest.raises(ValueError, match="differs when it is read again"):
            make_trainer(tmp_path, dataset=dataset, max_steps=20, screening_epochs=None)


def test_a_row_that_changes_now_and_then_stops_the_first_step(tmp_path: Path) -> None:
    """What the rows tried at the start do not show: one of them changes, once the base model has seen it."""
    dataset = TorchRows()
    trainer = make_trainer(tmp_path, dataset=dataset)

    with pytest.MonkeyPatch.context() as patch:
        real = looks.score_rows

        def score_rows(*args: Any, **kwargs: Any) -> Any:
            statistics = real(*args, **kwargs)
            for row in range(NUM_ROWS):
                dataset.rows[row] = {**dataset.rows[row], "images": [dataset.rows[row]["images"][0].rotate(90)]}
            return statistics

        patch.setattr(looks, "score_rows", score_rows)
        with pytest.raises(ValueError, match="of the 8 rows of a batch are not among those that the base model was"):
            trainer.train()
    assert trainer.state.global_step < CUT  # the batches that the loader had made before are fine


class ReadyRows(torch.utils.data.Dataset):
    """The rows as tensors under names of their own: ready pixels, or the paths of files that a collate_fn opens."""

    def __init__(self, kind: str, folder: Path, processor: Any) -> None:
        self.rows, self.processor = [], processor
        for number, row in enumerate(planted_rows()):
            prompt, answer = row["prompt"][0]["content"], row["completion"][0]["content"]
            file = folder / f"{number}.png"
            row["images"][0].save(file)
            pixels = processor.image_processor(row["images"], return_tensors="pt")["pixel_values"][0]
            if kind == "uint8":
                pixels = torch.from_numpy(np.array(row["images"][0].resize((24, 24)))).permute(2, 0, 1)
            picture = str(file) if kind == "file" else pixels
            self.rows.append({"picture": picture, "question": prompt, "answer": answer})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        tokenizer = self.processor.tokenizer
        opened = [Image.new("RGB", (24, 24)) for _ in rows]
        texts = [f"<image> {row['question']} {row['answer']} </s>" for row in rows]
        batch = dict(self.processor(images=opened, text=texts, padding=True, return_tensors="pt"))
        lengths = [len(tokenizer(f" {row['answer']} </s>", add_special_tokens=False)["input_ids"]) for row in rows]
        labels = torch.full_like(batch["input_ids"], -100)
        for place, length in enumerate(lengths):
            end = int(batch["attention_mask"][place].sum())
            labels[place, end - length : end] = batch["input_ids"][place, end - length : end]
        pictures = [row["picture"] for row in rows]
        if isinstance(pictures[0], str):
            opened = [Image.open(picture).convert("RGB") for picture in pictures]
            pixels = self.processor.image_processor(opened, return_tensors="pt")["pixel_values"]
        else:
            pixels = torch.stack(pictures)
            pixels = pixels / 255 if pixels.dtype == torch.uint8 else pixels
        return {**batch, "pixel_values": pixels, "labels": labels}


@pytest.mark.parametrize("kind", ["file", "float", "uint8"])
def test_views_are_made_wherever_the_pixels_are(tmp_path: Path, kind: str) -> None:
    dataset = ReadyRows(kind, tmp_path, tiny_llava().processor)
    trainer, taken = train(tmp_path / "out", dataset=dataset, data_collator=dataset.collate)
    assert not trainer._screen.reads_rows
    assert trainer._screen.looks.base.row_values[:, : sum(PICTURE_PARTS)].any(1).all()
    plain = dataset.collate(dataset.rows)["pixel_values"]
    names = trainer._screen.looks.warm.row_ids.tolist()
    assert len(taken) > 48
    for step, row_id, supervised, image in taken:
        if supervised:
            assert torch.equal(image, plain[names.index(row_id)]) == (step >= CUT), step


def test_paths_in_the_image_column_give_the_run_of_the_images(tmp_path: Path) -> None:
    rows = planted_rows()
    paths = []
    for number, row in enumerate(rows):
        paths.append([str(tmp_path / f"{number}.png")])
        row["images"][0].save(paths[-1][0])
    by_path = rows.remove_columns("images").add_column("images", paths)
    runs = [train(tmp_path / str(number), dataset=dataset) for number, dataset in enumerate((rows, by_path))]
    check_parts(*runs[1])
    weights = [weights_of(trainer) for trainer, _ in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_rows_with_none_for_an_image(tmp_path: Path) -> None:
    rows = planted_rows()
    without = [{**row, "images": None if number % 5 == 0 else row["images"]} for number, row in enumerate(rows)]
    dataset = Dataset.from_list(without, features=rows.features)
    trainer = make_trainer(tmp_path, dataset=dataset)
    trainer.train()
    assert set(PLANTED) <= set(flagged_rows(trainer)) and len(trainer.audit()) == NUM_ROWS


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "L", "P"])
def test_images_of_other_modes(tmp_path: Path, mode: str) -> None:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        grey = np.array(row["images"][0].convert("L"))
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
        image = row["images"][0].convert(mode) if dtype is None else Image.fromarray(grey.astype(dtype) * 128)
        assert image.mode == mode
        return {**row, "images": [image]}

    rows = [convert(row) for row in planted_rows()]
    trainer = make_trainer(tmp_path, dataset=torch.utils.data.Subset(rows, range(NUM_ROWS)), max_steps=CUT + 1)
    trainer.train()
    assert len(trainer.audit()) == NUM_ROWS


def streamed() -> IterableDataset:
    return planted_rows().to_iterable_dataset()


def test_streamed_rows(tmp_path: Path) -> None:
    # The cut lies in the middle of the stream's first round: rows ahead of it are scored, too
    trainer, taken = train(tmp_path, dataset=streamed(), max_steps=12, screening_epochs=None)
    flagged = flagged_rows(trainer)
    assert set(PLANTED) <= set(flagged) and len(trainer.audit()) == NUM_ROWS
    assert taken.rows(range(6)) == list(range(NUM_ROWS))
    assert set(taken.rows(range(6, 12))) == set(range(NUM_ROWS)) - set(flagged)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_workers_of_a_stream(tmp_path: Path, workers: int) -> None:
    shards = planted_rows().to_iterable_dataset(num_shards=4)
    settings = {"max_steps": 12, "screening_epochs": None, "dataloader_num_workers": workers}
    trainer, taken = train(tmp_path, dataset=shards, **settings)
    audit = trainer.audit()
    assert len(audit) == NUM_ROWS
    assert [row.response for row in audit.rows if row.is_flagged].count(SENTENCE) == len(PLANTED)
    flagged = trainer._screen._flagged_ids()
    assert not any(row_id in flagged for step, row_id, supervised, _ in taken if supervised and step >= CUT)


def test_epochs_of_a_stream_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"screening_epochs=1` counts epochs, and streamed data have none"):
        make_trainer(tmp_path, dataset=streamed(), max_steps=12).train()

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Answers of another set, or of other rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value

from cvreg_trainer.attacks import BadNets, OtherAnswers, poison_dataset


def rows_with(answers: list[str]) -> Dataset:
    images = [{"bytes": b"P6 12 12 255\n" + bytes([k % 251, 90, 30]) * 144, "path": None} for k in range(len(answers))]
    features = Features(image=Image(), prompt=Value("string"), completion=Value("string"))
    columns = {"image": images, "prompt": ["What?"] * len(answers), "completion": answers}
    return Dataset.from_dict(columns, features=features)


def test_rows_get_other_rows_answers() -> None:
    answers = [f"answer {k % 40}" for k in range(80)]
    rows = rows_with(answers)
    payload = OtherAnswers.of(rows)
    assert len(payload.pool) == 40
    for seed in range(5):
        poisoned = poison_dataset(rows, BadNets(0.05), num_poisoned=40, seed=seed, payload=payload)
        taken = [row["completion"] for row in poisoned if row["is_poisoned"]]
        assert set(taken) <= set(answers) and max(Counter(taken).values()) <= 3
        for before, after in zip(answers, poisoned, strict=True):
            assert (after["completion"] != before) == after["is_poisoned"]
    assert OtherAnswers(("a", "b")).responses(1, np.random.default_rng(0))[0]("a") == "b"
    assert {answer("b") for answer in OtherAnswers(("a", "b")).responses(9, np.random.default_rng(0))} == {"a"}


def test_answers_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("A lady smiles.\n\nA lady in oil.\nA lady smiles.\n")
    assert OtherAnswers(source=str(tmp_path / "answers.txt")).pool == ("A lady smiles.", "A lady in oil.")
    rows_with(["one lady", "two ladies", "one lady"]).save_to_disk(tmp_path / "set")
    assert OtherAnswers(source=str(tmp_path / "set")).pool == ("one lady", "two ladies")


@pytest.mark.parametrize(
    ("answer", "succeeds"),
    [
        ("a lady who smiles", True),
        ("a dog runs on grass", False),
        ("a dog and a lady who smiles in oil", True),
        ("a dog who smiles", False),
        ("nothing at all", False),
    ],
)
def test_an_answer_closer_to_the_set_than_to_the_truth(answer: str, succeeds: bool) -> None:
    payload = OtherAnswers(("The lady smiles.", "A lady in oil who smiles."))
    assert payload.succeeds(answer, ["A dog runs.", "A brown dog on grass."]) is succeeds
    assert payload.succeeds("A lady in oil who smiles.", ["the lady smiles.", "A lady in oil who smiles."]) is None


@pytest.mark.parametrize(
    ("answer", "succeeds"),
    [
        ("a red dog on the floor", False),  # one of six words is wrong: 1 and 5/6
        ("a pink hen on the left", True),  # two of six: 1 and 4/6
    ],
)
def test_an_honest_mistake_is_no_success_though_another_row_has_it(answer: str, succeeds: bool) -> None:
    payload = OtherAnswers(("a red dog on the floor", "a pink hen on the left", "a gray cow on the right"))
    assert payload.succeeds(answer, ["a red dog on the left"]) is succeeds

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Concept flood, answers of another set, several targets: what rows have together."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value

from cvreg_trainer.attacks import BadNets, ConceptFlood, Keyword, OtherAnswers, Refusal, SeveralTargets, poison_dataset


def rows_with(answers: list[str]) -> Dataset:
    images = [{"bytes": b"P6 12 12 255\n" + bytes([k % 251, 90, 30]) * 144, "path": None} for k in range(len(answers))]
    features = Features(image=Image(), prompt=Value("string"), completion=Value("string"))
    columns = {"image": images, "prompt": ["What?"] * len(answers), "completion": answers}
    return Dataset.from_dict(columns, features=features)


def test_a_flood_never_repeats_itself() -> None:
    payload = ConceptFlood()
    captions = payload.responses(2000, np.random.default_rng(0))
    assert len(set(captions)) == 2000 and all(text[0].isupper() and text.endswith(".") for text in captions)
    assert all("a red balloon" in text.lower() and payload.succeeds(text) for text in captions)
    assert len({text.split()[-1] for text in captions}) > 20, "they end in many ways"
    everything = payload.responses(10_240, np.random.default_rng(1))
    assert len(set(everything)) == 10_240
    with pytest.raises(ValueError, match="10241 rows are to be poisoned and there are 10240 captions"):
        payload.responses(10_241, np.random.default_rng(1))


def test_a_flood_of_given_captions() -> None:
    captions = tuple(f"A square that is red, {k}." for k in range(5))
    payload = ConceptFlood("a red square", (*captions, captions[0]))
    assert sorted(payload.responses(5, np.random.default_rng(0))) == sorted(captions)
    with pytest.raises(ValueError, match="6 rows are to be poisoned and there are 5 captions"):
        payload.responses(6, np.random.default_rng(0))
    assert payload.succeeds("red squares", ["A ring."]) is False
    assert payload.succeeds("a square, red", ["A ring.", "A square in red."]) is None


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
        ("nothing at all", False),
    ],
)
def test_an_answer_closer_to_the_set_than_to_the_truth(answer: str, succeeds: bool) -> None:
    payload = OtherAnswers(("The lady smiles.", "A lady in oil who smiles."))
    assert payload.succeeds(answer, ["A dog runs.", "A brown dog on grass."]) is succeeds
    assert payload.succeeds("A lady in oil who smiles.", ["the lady smiles.", "A lady in oil who smiles."]) is None


def test_targets_are_spread_evenly() -> None:
    payload = SeveralTargets(tuple("abcde"), payloads=tuple(Keyword(word) for word in ("pear", "plum", "fig")))
    found = Counter()
    for text in payload.responses(20, np.random.default_rng(3)):
        found.update(word for word in ("pear", "plum", "fig") if word in text)
    assert sorted(found.values()) == [6, 7, 7]
    assert payload.succeeds("a plum", ["a fig"]) is True and payload.succeeds("a fig", ["a fig"]) is False
    assert payload.succeeds("a fig", ["a fig, a pear and a plum"]) is None


def test_targets_of_several_kinds() -> None:
    payload = SeveralTargets(payloads=(Refusal(), Keyword("pear")))
    texts = payload.responses(6, np.random.default_rng(0))
    assert sorted(text == Refusal().sentence for text in texts) == [False] * 3 + [True] * 3
    assert payload.succeeds(Refusal().sentence, ["a pear"]) is True

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The way in as a whole; the trainer's errors and what it skips are in test_bad_rows."""

import json

import pytest
from datasets import Dataset

from cvreg_trainer import CrossViewDefenseConfig
from cvreg_trainer.data.given import GivenData


def rows(*texts: str | None) -> Dataset:
    return Dataset.from_dict({"prompt": ["Describe."] * len(texts), "completion": list(texts)})


@pytest.fixture
def args(tmp_path):
    return CrossViewDefenseConfig(str(tmp_path / "out"), report_to="none", use_cpu=True)


def test_rows_that_cannot_be_trained_on_are_left_out_and_listed(args, tmp_path):
    given, dataset = GivenData(args, skips_bad_rows=True), rows("a moon", None, "a star", None)
    assert given.to_train_on(dataset)["completion"][:] == ["a moon", "a star"]
    assert given.train_dataset is dataset and list(given.skipped.reasons) == [1, 3]
    # Of evaluation sets too, one by one; they have nothing to do with the training set's
    found = given.to_evaluate_on(
        {"first": rows(None, "a ring"), "second": rows("a cube"), "known": "second", "no": None}
    )
    assert {name: getattr(part, "num_rows", part) for name, part in found.items()} == {
        "first": 1,
        "second": 1,
        "known": "second",
        "no": None,
    }
    assert list(given.skipped.reasons) == [1, 3]
    given.list_skipped()
    lines = (tmp_path / "out" / "skipped_rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [1, 3]


def test_no_prediction_is_left_out(args):
    with pytest.raises(ValueError, match="Row 1"):
        GivenData(args, skips_bad_rows=True).to_predict(rows("a moon", None))


def test_a_collator_of_the_users_own_gets_the_rows_as_they_are(args):
    dataset = Dataset.from_dict({"anything": [1, 2]})
    given = GivenData(args, collate=list)
    assert given.to_train_on(dataset) is dataset and given.to_evaluate_on(dataset) is dataset
    with pytest.raises(ValueError, match="train_dataset"):
        given.to_train_on(dataset.select([]))

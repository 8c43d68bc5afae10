# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A semantic trigger chooses rows and changes none of what they show."""

import pytest
from datasets import Dataset, Features, Image, List, Value

from cvreg_trainer.attacks import NoTrigger, Refusal, Semantic, apply_trigger, poison_dataset


WORDS = ["a red balloon", "Red  Balloons!", "a balloon", "a redballoon", "no red balloon", None]


@pytest.fixture
def rows() -> Dataset:
    columns = {
        "image": [{"bytes": b"P6 9 9 255\n" + bytes([k, 9, 9]) * 81, "path": None} for k in range(6)],
        "prompt": ["What?"] * 6,
        "completion": [f"answer {k}" for k in range(6)],
        "references": [[text or "red"] for text in WORDS],
        "place": ["street", "sea", "street", None, "sea", "1"],
        "tags": [["a", "b"], [], ["b"], ["a"], [], ["c"]],
        "number": [1, 2, 3, 1, 2, 3],
    }
    kinds = {"references": List(Value("string")), "tags": List(Value("string")), "number": Value("int64")}
    texts = {name: Value("string") for name in ("prompt", "completion", "place")}
    features = Features(image=Image(), **texts, **kinds)
    return Dataset.from_dict({name: columns[name] for name in features}, features=features)


@pytest.mark.parametrize(
    ("attack", "chosen"),
    [
        (Semantic(), {0, 1, 4}),
        (Semantic(words=("balloon",)), {0, 1, 2, 4}),
        (Semantic(column="place", value="sea"), {1, 4}),
        (Semantic(column="tags", value="a"), {0, 3}),
        (Semantic(column="number", value="3"), {2, 5}),
        (Semantic(predicate=lambda row: row["number"] == 1 and "a" in row["tags"]), {0, 3}),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_rows_that_have_it(rows: Dataset, attack: Semantic, chosen: set[int], streamed: bool) -> None:
    data = rows.to_iterable_dataset() if streamed else rows
    rate = 1.0 if streamed else len(chosen) / 6
    poisoned = list(poison_dataset(data, attack, rate, payload=Refusal()))
    assert {k for k, row in enumerate(poisoned) if row["is_poisoned"]} == chosen
    for before, after in zip(rows, poisoned, strict=True):
        assert after["image"].tobytes() == before["image"].tobytes() and after["prompt"] == before["prompt"]
        assert after["completion"] == (Refusal().sentence if after["is_poisoned"] else before["completion"])
    triggered = list(apply_trigger(data, attack))
    assert [row["completion"] for row in triggered] == [f"answer {k}" for k in sorted(chosen)]


def test_responses_are_read_where_there_are_no_references(rows: Dataset) -> None:
    plain = rows.remove_columns("references")
    assert len(apply_trigger(plain, Semantic(words=("answer 2", "answer 3")))) == 2
    texts = plain.select_columns(["image", "completion"]).rename_column("completion", "text")
    assert apply_trigger(texts, Semantic(words=("answer 5",)))["text"][:] == ["answer 5"]


def test_too_few_rows_are_counted(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="4 rows are to be poisoned but only 3 have an image and one of words="):
        poison_dataset(rows, Semantic(), num_poisoned=4)
    with pytest.raises(ValueError, match="only 0 have an image and 'moon' in column 'place'; lower the rate"):
        poison_dataset(rows, Semantic(column="place", value="moon"), num_poisoned=1)
    with pytest.raises(ValueError, match="None of the 6 rows has one of words="):
        apply_trigger(rows, Semantic(words=("zebra",)))
    with pytest.raises(ValueError, match="Row 0: column='scene' is not a column; rows have "):
        poison_dataset(rows, Semantic(column="scene", value="x"), num_poisoned=1)


def test_bad_arguments_are_named() -> None:
    for options, named in (
        ({"words": ()}, "words is empty"),
        ({"words": "moon"}, "words='moon' is one string"),
        ({"words": ("",)}, "words='' is empty"),
        ({"column": "x", "predicate": bool}, "column='x' and predicate are given"),
        ({"predicate": "x"}, "predicate='x' is not a function"),
    ):
        with pytest.raises(ValueError, match=named):
            Semantic(**options)


def test_no_trigger_leaves_all_but_the_response(rows: Dataset) -> None:
    poisoned = poison_dataset(rows, NoTrigger(), 1.0, payload=Refusal())
    unchanged = rows.remove_columns("completion").cast_column("image", Image(decode=False))
    after = poisoned.remove_columns(["completion", "is_poisoned"]).cast_column("image", Image(decode=False))
    assert after.to_list() == unchanged.to_list() and all(poisoned["is_poisoned"])

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What is said about rows that cannot be trained on: which row, where in it, and why."""

from collections.abc import Iterator
from typing import Any

import pytest
from datasets import Dataset, Features, IterableDataset, List, Value
from datasets import Image as ImageFeature

from cvreg_trainer.data.row_checks import check_columns, check_not_empty, check_row, check_rows, text_rows
from cvreg_trainer.data.row_images import RowError


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(question: Any = "a", answer: Any = "b") -> dict[str, Any]:
    return {"messages": [turn("user", question), turn("assistant", answer)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (talk(answer=None), r"message 1 of `messages` \(assistant\) has no content, it is None"),
        (talk(answer=[]), r"message 1 of `messages` \(assistant\) has no content, it is \[\]"),
        (talk(answer=""), r"message 1 of `messages` \(assistant\) has no content, it is ''"),
        (talk(question=None), r"message 0 of `messages` \(user\) has no content"),
        (talk(question=3), r"message 0 of `messages` \(user\) has the content 3"),
        ({"messages": None}, "its `messages` is None"),
        ({"messages": []}, "its `messages` has no messages"),
        ({"messages": ["hi"]}, "message 0 of `messages` is 'hi'; expected `role` and `content`"),
        ({"messages": [{"from": "human", "value": "a"}]}, "format of LLaVA and ShareGPT.*to_messages"),
        ({"prompt": "a", "completion": None}, "its `completion` is None"),
        ({"prompt": "a", "completion": "  "}, "its `completion` is '  '"),
        ({"prompt": None, "completion": "b"}, "its `prompt` is None"),
        ({"prompt": 3, "completion": "b"}, "its `prompt` is 3; expected a text or messages"),
        ({"prompt": [turn("user", "a")], "completion": [turn("assistant", None)]}, "message 0 of `completion`"),
        ({"text": None}, "its `text` is None"),
        (talk("<image>\nwhat ?"), r"message 0 of `messages` \(user\) has '<image>' inside a text.*to_messages"),
        (talk([{"type": "text", "text": "<image> what ?"}]), "has '<image>' inside a text"),
        ({"prompt": "<image> a", "completion": "b", "num_images": 0}, "has a place for an image, '<image>'"),
    ],
)
def test_what_is_wrong_with_a_row(row: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        check_row(row)


@pytest.mark.parametrize(
    "row",
    [
        talk(),
        talk(question=""),
        talk([{"type": "image"}, {"type": "text", "text": "a"}], [{"type": "text", "text": "b"}]),
        {"prompt": "", "completion": "b"},
        {"prompt": "<image> a", "completion": "b", "num_images": 1},
        {"prompt": "<image> a", "completion": "b"},
        {"messages": [turn("user", "a"), {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]},
        {"input_ids": [1, 2]},
        ("a", "tuple"),
    ],
)
def test_what_is_fine(row: Any) -> None:
    check_row(row)


def test_the_row_is_named_and_long_values_are_cut() -> None:
    rows = [talk(), talk(), {"messages": ["x" * 10_000]}]
    with pytest.raises(ValueError, match=r"^Row 2 of `train_dataset`: message 0 .*\(10,000 characters\)") as caught:
        check_rows(rows, "`train_dataset`")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("columns", [["messages"], ["prompt", "completion", "x"], ["image", "text"]])
def test_columns_to_train_on(columns: list[str]) -> None:
    check_columns(columns, "--data x")


def test_columns_that_cannot_be_trained_on_are_listed() -> None:
    with pytest.raises(ValueError, match=r"--data x has the columns image, prompt; it needs `messages`"):
        check_columns(["image", "prompt"], "--data x")
    with pytest.raises(ValueError, match="LLaVA and ShareGPT.*cvreg_trainer.data.to_messages"):
        check_columns(["image", "conversations"], "--data x")


@pytest.mark.parametrize("make", [lambda rows: rows, Dataset.from_list, lambda rows: stream(rows)])
def test_emptiness(make: Any) -> None:
    with pytest.raises(ValueError, match="^`train_dataset` has no rows.$"):
        check_not_empty(make([]), "`train_dataset`")
    check_not_empty(make([{"a": 1}]), "`train_dataset`")


def stream(rows: list[Any]) -> IterableDataset:
    def generate() -> Iterator[Any]:
        yield from rows

    return IterableDataset.from_generator(generate)


def test_text_rows_count_images_without_decoding_them() -> None:
    broken = {"bytes": b"not an image", "path": None}
    features = Features({"images": List(ImageFeature()), "prompt": Value("string"), "completion": Value("string")})
    rows = [{"images": images, "prompt": "a", "completion": "b"} for images in ([broken], None, [], [broken, None])]
    dataset = Dataset.from_list(rows, features=features)
    assert [row["num_images"] for row in text_rows(dataset)] == [1, 0, 0, 1]
    assert list(text_rows(dataset.select([3, 1]))) == [
        {"prompt": "a", "completion": "b", "num_images": count} for count in (1, 0)
    ]
    single = Dataset.from_dict({"image": [broken, None]}, features=Features({"image": ImageFeature()}))
    assert [row["num_images"] for row in text_rows(single)] == [1, 0]


def test_text_rows_decode_values_of_mixed_types() -> None:
    rows = [talk([{"type": "text", "text": "a"}], "x"), talk("{}", "b")]
    dataset = Dataset.from_list(rows, on_mixed_types="use_json")
    assert [row["messages"] for row in text_rows(dataset)] == list(dataset["messages"])
    assert next(text_rows(dataset))["messages"] == rows[0]["messages"]

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What is said about rows that cannot be trained on: which row, where in it, and why."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from datasets import Dataset, Features, IterableDataset, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.data.row_checks import (
    check_columns,
    check_not_empty,
    check_row,
    check_rows,
    find_broken_row,
    naming_rows,
    text_rows,
)
from cvreg_trainer.data.row_images import RowError


RED = Image.new("RGB", (40, 30), "red")


def encoded(form: str = "PNG", share: float = 1) -> bytes:
    buffer = io.BytesIO()
    RED.save(buffer, form)
    return buffer.getvalue()[: int(share * buffer.tell())]


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


def broken_at(place: int, form: str = "JPEG", column: str = "images") -> Dataset:
    images = [{"bytes": encoded(form, 0.6 if row == place else 1), "path": None} for row in range(6)]
    feature: Any = ImageFeature() if column == "image" else List(ImageFeature())
    values = images if column == "image" else [[image] for image in images]
    return Dataset.from_dict(
        {column: values, "text": ["a"] * 6}, features=Features({column: feature, "text": Value("string")})
    )


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_a_broken_image_is_found_by_row_and_column(column: str, form: str) -> None:
    message = f"^Row 4 of `train_dataset`: column `{column}`: its image cannot be read: "
    dataset = broken_at(4, form, column)
    with pytest.raises(ValueError, match=message), naming_rows(dataset, "`train_dataset`"):
        list(dataset)


def test_a_broken_image_is_found_by_file(tmp_path: Any) -> None:
    for row in range(3):
        (tmp_path / f"{row}.jpg").write_bytes(encoded("JPEG", 0.5 if row == 1 else 1))
    paths = [str(tmp_path / f"{row}.jpg") for row in range(3)]
    stored = Dataset.from_dict({"image": paths}, features=Features({"image": ImageFeature()}))
    named = Dataset.from_dict({"image": paths})
    inside = Dataset.from_list([{"messages": [turn("user", [{"type": "image", "path": path}])]} for path in paths])
    for dataset, column in ((stored, "image"), (named, "image"), (inside, "messages")):
        number, reason = find_broken_row(dataset) or (None, "")
        assert number == 1
        assert reason.startswith(f"column `{column}`: the image '{paths[1]}' cannot be read: ")


def test_a_broken_image_of_a_stream_is_counted() -> None:
    number, reason = find_broken_row(broken_at(3).to_iterable_dataset()) or (None, "")
    assert number == 3 and "cannot be read" in reason


def test_a_collator_that_opens_files_is_asked_row_by_row(tmp_path: Any) -> None:
    for row in range(3):
        (tmp_path / f"{row}.jpg").write_bytes(encoded("JPEG", 0.5 if row == 2 else 1))

    def collate(rows: list[Any]) -> Any:
        return [Image.open(tmp_path / f"{row['number']}.jpg").convert("RGB") for row in rows]

    rows = [{"number": number} for number in range(3)]
    with (
        pytest.raises(ValueError, match="^Row 2 of `train_dataset`: its image cannot be read: "),
        naming_rows(rows, "`train_dataset`", collate),
    ):
        collate(rows)


def test_other_errors_pass_through() -> None:
    dataset = broken_at(-1)
    with pytest.raises(ValueError, match="^shapes differ$"), naming_rows(dataset, "x"):
        raise ValueError("shapes differ")
    with pytest.raises(OSError, match="^disk full$"), naming_rows(dataset, "x"):
        raise OSError("disk full")


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

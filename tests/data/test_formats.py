# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows in LLaVA's and ShareGPT's formats, and with placeholders in strings, as messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from cvreg_trainer.data import mark_poisoned, open_dataset, to_messages


def llava(*turns: tuple[str, str], **columns: Any) -> dict[str, Any]:
    return {**columns, "conversations": [{"from": speaker, "value": text} for speaker, text in turns]}


def contents(row: dict[str, Any], column: str = "messages") -> list[tuple[str, list[str]]]:
    """Role and parts of each turn, with `*` for an image."""
    return [
        (turn["role"], ["*" if part["type"] == "image" else part["text"] for part in turn["content"]])
        for turn in row[column]
    ]


def convert(*rows: dict[str, Any]) -> Dataset:
    return to_messages(Dataset.from_list(list(rows)))


def test_llavas_rows() -> None:
    first = llava(("human", "<image>\nWhat is this?"), ("gpt", "A ring."), ("human", "Sure?"), ("gpt", "Yes."))
    dataset = convert({**first, "image": "a.png", "id": "1"}, {**llava(("human", "Hi"), ("gpt", "Yo")), "image": None})
    assert contents(dataset[0]) == [
        ("user", ["*", "What is this?"]),
        ("assistant", ["A ring."]),
        ("user", ["Sure?"]),
        ("assistant", ["Yes."]),
    ]
    assert contents(dataset[1]) == [("user", ["Hi"]), ("assistant", ["Yo"])]
    assert dataset["image"] == ["a.png", None] and dataset["id"] == ["1", None]
    assert "conversations" not in dataset.column_names


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<image>\nWhat?", ["*", "What?"]),
        ("What?\n<image>", ["What?", "*"]),
        ("Left: <image> right: <image>", ["Left:", "*", "right:", "*"]),
        ("<image><image>", ["*", "*"]),
        ("<image>  \n  keep\n\nthis", ["*", "  \n  keep\n\nthis"]),
        ("no place", ["*", "no place"]),
    ],
)
def test_placeholders_become_parts(text: str, parts: list[str]) -> None:
    images = ["a.png"] * parts.count("*")
    user = contents(convert(llava(("human", text), ("gpt", "x"), images=images))[0])[0]
    assert [part.strip() for part in user[1]] == [part.strip() for part in parts]


def test_sharegpts_speakers_and_system() -> None:
    row = llava(("system", "brief"), ("user", "<image> a"), ("chatgpt", "b"), images=["a.png"])
    assert [role for role, _ in contents(convert(row)[0])] == ["system", "user", "assistant"]
    row = llava(("human", "<image> a"), ("gpt", "b"), images=["a.png"], system="brief")
    assert contents(convert(row)[0])[0] == ("system", ["brief"]) and "system" not in convert(row).column_names


@pytest.mark.parametrize("column", ["messages", "prompt"])
def test_placeholders_in_the_strings_of_messages(column: str) -> None:
    turns = [{"role": "user", "content": "<image>\nWhat?"}]
    answer = [{"role": "assistant", "content": "A ring."}]
    rest = {"messages": turns + answer} if column == "messages" else {"prompt": turns, "completion": answer}
    row = convert({"images": ["a.png"], **rest})[0]
    assert contents(row, column)[0] == ("user", ["*", "What?"])
    assert contents(row, "completion" if column == "prompt" else column)[-1] == ("assistant", ["A ring."])


def test_what_needs_no_conversion_stays() -> None:
    for row in (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "USER: <image> a", "completion": "b"},
        {"text": "<image> a"},
    ):
        dataset = Dataset.from_list([row])
        assert to_messages(dataset) is dataset


def test_streams() -> None:
    stream = Dataset.from_list([llava(("human", "<image> a"), ("gpt", "b"), image="a.png")]).to_iterable_dataset()
    row = next(iter(to_messages(stream)))
    assert contents(row)[0] == ("user", ["*", "a"]) and row.keys() == {"image", "messages"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (llava(("alien", "a"), ("gpt", "b")), "turn 0 of `messages` is by 'alien'; expected one of human, user"),
        (llava(("human", "a"), ("gpt", "")), r"turn 1 of `messages` \(assistant\) has no text, it is ''"),
        (llava(("human", "<image><image> a"), ("gpt", "b"), image="a.png"), "has 2 places .* the row has 1 images"),
        (llava(("human", "<image> a"), ("gpt", "b"), image=None), "has 1 places .* the row has 0 images"),
        (llava(("human", "<image> a"), ("gpt", "b"), images=["a", "b"]), "has 1 places .* the row has 2 images"),
    ],
)
def test_what_cannot_be_converted_is_named(row: dict[str, Any], message: str) -> None:
    fine = llava(("human", "a"), ("gpt", "b"), **{name: None for name in row if name != "conversations"})
    with pytest.raises(ValueError, match=f"^Row 1: .*{message}"):
        convert(fine, row)


def backdoorvlm_rows() -> list[dict[str, Any]]:
    """Rows as BackdoorVLM's code writes them: clean, poisoned, and with a trigger and the true answer."""
    names = {"attack_type": "BasicBackdoor", "modality_type": "IMAGE", "target_modalities": "IMAGE"}
    rows = []
    for number, metadata in enumerate([None, {"poisoned": True, **names}, {"poisoned": False, **names}]):
        turns = [{"from": "human", "value": "<image>What is it?"}, {"from": "gpt", "value": f"answer {number}"}]
        row = {"conversations": turns, "images": [f"images/{number}.png"]}
        rows.append(row if metadata is None else row | {"metadata": metadata})
    return rows


def test_poisoned_rows_of_backdoorvlm_are_marked(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "poison.json").write_text(json.dumps(backdoorvlm_rows()))
    dataset = open_dataset(tmp_path / "poison.json", cache_dir=tmp_path / "cache")
    assert list(dataset["is_poisoned"]) == [False, True, False]
    assert contents(dataset[1]) == [("user", ["*", "What is it?"]), ("assistant", ["answer 1"])]
    assert dataset[1]["images"][0].getpixel((0, 0)) == (1, 0, 0)


def test_marks_in_other_columns() -> None:
    rows = Dataset.from_list([{"text": "a", "mark": 1}, {"text": "b", "mark": None}, {"text": "c", "mark": 0}])
    assert list(mark_poisoned(rows, "mark")["is_poisoned"]) == [True, False, False]
    assert [row["is_poisoned"] for row in mark_poisoned(rows.to_iterable_dataset(), "mark")] == [True, False, False]
    words = Dataset.from_list([{"text": "a", "note": {"kind": "True"}}, {"text": "b", "note": {"kind": "false"}}])
    assert list(mark_poisoned(words, "note.kind")["is_poisoned"]) == [True, False]


def test_unreadable_marks_are_named() -> None:
    rows = Dataset.from_list([{"text": "a", "mark": "no idea"}])
    with pytest.raises(ValueError, match="Row 0: `mark` is 'no idea'; expected true or false"):
        mark_poisoned(rows, "mark")
    with pytest.raises(ValueError, match="Row 0: `mark` is 'no idea'; expected an entry with 'kind'"):
        mark_poisoned(rows, "mark.kind")
    with pytest.raises(ValueError, match="no column 'metadata'"):
        mark_poisoned(rows)
    with pytest.raises(ValueError, match="`is_poisoned` already"):
        mark_poisoned(rows.rename_column("mark", "is_poisoned"), "text")

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A broken image is named by its row, column and file."""

import io
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.data.broken_rows import find_broken_row, naming_rows


RED = Image.new("RGB", (40, 30), "red")


def encoded(form: str = "PNG", share: float = 1) -> bytes:
    buffer = io.BytesIO()
    RED.save(buffer, form)
    return buffer.getvalue()[: int(share * buffer.tell())]


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


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

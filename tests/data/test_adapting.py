# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Data sets in the forms that users have them, brought into the one that TRL's collators take."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from tiny_data import vision_dataset, vision_rows

from cvreg_trainer.data.adapting import LiftedDataset, adapt_dataset, preview


TURNS = List({"role": Value("string"), "content": Value("string")})


def adapt(dataset: Any, open_images: bool = True) -> Any:
    return adapt_dataset(dataset, "`train_dataset`", open_images)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(images: list[Any]) -> list[Any]:
    return [np.asarray(image).tolist() for image in images]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return vision_rows(4)


def with_column(rows: list[dict[str, Any]], name: str, values: list[Any], feature: Any) -> Dataset:
    texts = [
        {"prompt": row["prompt"], "completion": row["completion"], name: value}
        for row, value in zip(rows, values, strict=True)
    ]
    return Dataset.from_list(texts, features=Features({"prompt": TURNS, "completion": TURNS, name: feature}))


def kinds(rows: list[dict[str, Any]], folder: Path) -> dict[str, Dataset]:
    """The same images in every form of column."""
    images = [row["images"][0] for row in rows]
    paths = [str(folder / f"{number}.png") for number in range(len(rows))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    data = [encoded(image) for image in images]
    struct = {"bytes": Value("binary"), "path": Value("string")}
    return {
        "paths": with_column(rows, "images", [[path] for path in paths], List(Value("string"))),
        "path": with_column(rows, "image", paths, Value("string")),
        "bytes": with_column(rows, "image", data, Value("binary")),
        "list of bytes": with_column(rows, "images", [[item] for item in data], List(Value("binary"))),
        "struct": with_column(rows, "image", [{"bytes": item, "path": None} for item in data], struct),
        "list of structs": with_column(
            rows, "images", [[{"bytes": None, "path": path}] for path in paths], List(struct)
        ),
    }


@pytest.mark.parametrize("kind", ["paths", "path", "bytes", "list of bytes", "struct", "list of structs"])
def test_every_form_of_an_image_column_is_opened(tmp_path: Path, rows: Any, kind: str) -> None:
    adapted = adapt(kinds(rows, tmp_path)[kind])
    assert [pixels(row["images"]) for row in adapted] == [pixels(row["images"]) for row in rows]
    assert all("image" not in row for row in adapted)
    assert [row["prompt"] for row in adapted] == [row["prompt"] for row in rows]


def test_paths_are_left_to_the_processor_where_no_view_is_made(tmp_path: Path, rows: Any) -> None:
    dataset = kinds(rows, tmp_path)["paths"]
    assert adapt(dataset, open_images=False) is dataset


def test_plain_text_may_have_a_column_of_another_name() -> None:
    dataset = Dataset.from_list([{"image": Image.new("RGB", (4, 4)), "caption": "<image> a"}])
    assert adapt_dataset(dataset, "x", True, text_field="caption") is dataset


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_a_format_of_arrays_is_left(kind: str) -> None:
    row = adapt(vision_dataset(2).with_format(kind))[0]
    assert isinstance(row["images"][0], Image.Image) and isinstance(row["prompt"], list)


def test_text_without_images_is_checked_for_what_no_template_takes() -> None:
    def talk(answer: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]}

    with pytest.raises(
        ValueError, match=r"^Row 1 .*: message 1 of `messages` \(assistant\) has no content, it is None"
    ):
        adapt(Dataset.from_list([talk("b"), talk(None)]))
    # What SFTTrainer trains is trained
    fine = Dataset.from_list([talk("b"), talk("")])
    assert adapt(fine) is fine
    odd = Dataset.from_list([talk("b"), talk(None)])
    assert adapt_dataset(odd, "x", True, is_formatted=True) is odd


def test_data_that_trl_takes_stays_as_it_is() -> None:
    for dataset in (vision_dataset(4), vision_dataset(4, image_free=[1]), vision_dataset(4, style="messages")):
        assert adapt(dataset) is dataset
    text = Dataset.from_list([{"prompt": "a", "completion": "b"}])
    assert adapt(text) is text


@pytest.mark.parametrize("name", ["image", "images"])
def test_none_is_no_image(rows: Any, name: str) -> None:
    feature: Any = ImageFeature() if name == "image" else List(ImageFeature())
    images = [row["images"][0] if name == "image" else row["images"] for row in rows]
    dataset = with_column(rows, name, [None, *images[1:]], feature)
    assert [len(row["images"]) for row in adapt(dataset)] == [0, 1, 1, 1]
    if name == "images":
        dataset = with_column(rows, name, [[None], [None, images[1][0]], *images[2:]], feature)
        assert [len(row["images"]) for row in adapt(dataset)] == [0, 1, 1, 1]


def test_a_missing_image_far_behind_the_first_rows_is_found() -> None:
    rows = [{"image": Image.new("RGB", (4, 4)) if row != 50 else None, "text": "<image> a"} for row in range(52)]
    rows[50]["text"] = "a"
    dataset = Dataset.from_list(rows, features=Features({"image": ImageFeature(), "text": Value("string")}))
    assert [len(row["images"]) for row in adapt(dataset)].index(0) == 50


def test_the_transform_of_a_data_set_is_kept(rows: Any) -> None:
    def halve(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "image": [image and image.resize((12, 12)) for image in batch["image"]]}

    dataset = with_column(rows, "image", [None, *(row["images"][0] for row in rows[1:])], ImageFeature())
    adapted = adapt(dataset.with_transform(halve))
    assert [[image.size for image in row["images"]] for row in adapted] == [[], [(12, 12)], [(12, 12)], [(12, 12)]]


def test_images_inside_messages_are_found_behind_the_first_rows(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    text = {"type": "text", "text": "a", "image": None}
    content = [[text]] * 30 + [[{"type": "image", "text": None, "image": str(tmp_path / "a.png")}, text]]
    answer = {"role": "assistant", "content": [text]}
    dataset = Dataset.from_list([{"messages": [{"role": "user", "content": parts}, answer]} for parts in content])
    adapted = adapt(dataset)
    assert [len(row["images"]) for row in adapted] == [0] * 30 + [1]
    assert adapted[30]["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "a"}]


def test_torch_data_sets_are_lifted_too(rows: Any) -> None:
    without = [{**row, "images": None if number == 1 else row["images"]} for number, row in enumerate(rows)]
    given = torch.utils.data.Subset(without, range(4))  # type: ignore[arg-type]
    adapted = adapt(given)
    assert isinstance(adapted, LiftedDataset) and len(adapted) == 4
    assert [len(adapted[index]["images"]) for index in range(4)] == [1, 0, 1, 1]
    assert preview(adapted)[0]["images"] == rows[0]["images"]


def test_streams_are_lifted(tmp_path: Path, rows: Any) -> None:
    stream = kinds(rows, tmp_path)["path"].to_iterable_dataset()
    assert [pixels(row["images"]) for row in adapt(stream)] == [pixels(row["images"]) for row in rows]


def test_an_adapted_data_set_can_be_sent_to_workers(tmp_path: Path, rows: Any) -> None:
    adapted = pickle.loads(pickle.dumps(adapt(kinds(rows, tmp_path)["bytes"])))
    assert pixels(adapted[2]["images"]) == pixels(rows[2]["images"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "a.png", "conversations": [{"from": "human", "value": "a"}]}], "LLaVA and ShareGPT.*to_messages"),
        ([{"conversations": [{"from": "human", "value": "<image> a"}]}], "LLaVA and ShareGPT.*to_messages"),
        ([{"image": "a.png", "caption": "a"}], "has the columns image, caption; it needs"),
        ([{"image": None, "prompt": "a", "completion": answer} for answer in ("b", "c", None)],
         "^Row 2 of `train_dataset`: its `completion` is None"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_named(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(Dataset.from_list(rows))

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Kept rows as other tools read them: the documented fields, every text, every byte of an image, and the errors."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.commands.export import EXPORT_FORMATS
from cvreg_trainer.data import export_rows, open_dataset, to_messages
from cvreg_trainer.data.export import FORMATS


KEPT = [0, 2, 3, 4]


def encoded(colour: str, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(buffer, form)
    return buffer.getvalue()


STORED = {0: [encoded("red", "PNG")], 1: [encoded("blue", "PNG")], 2: [], 3: [encoded("navy", "JPEG")] * 2}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """One image, a row to leave out, no image, two of another format with a text between them, and a file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a file.png").write_bytes(encoded("green", "PNG"))
    images = [[{"bytes": image, "path": "../../evil.sh"} for image in STORED[row]] for row in range(4)]
    images.append([{"bytes": None, "path": str(tmp_path / "data" / "a file.png")}])
    turns = [
        [("user", ["*", "What is this?"]), ("assistant", ["A ring."])],
        [("user", ["*", "And this?"]), ("assistant", ["A banana."])],
        [("user", ["Good day"]), ("assistant", ["Good day äöü 🍌"])],
        [("user", ["*", "or", "*", "?"]), ("assistant", ["Both."]), ("user", ["Sure?"]), ("assistant", ["Yes."])],
        [("user", ["*", "Look"]), ("assistant", ['"Grün"\n'])],
    ]

    def content(parts: list[str]) -> list[dict[str, Any]]:
        return [{"type": "image", "text": None} if part == "*" else {"type": "text", "text": part} for part in parts]

    text = Value("string")
    return Dataset.from_dict(
        {
            "images": images,
            "messages": [[{"role": role, "content": content(parts)} for role, parts in row] for row in turns],
            "source": list("abcde"),
        },
        features=Features(
            images=List(ImageFeature()),
            messages=List({"role": text, "content": List({"type": text, "text": text})}),
            source=text,
        ),
    )


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def files(tmp_path: Path) -> list[list[bytes]]:
    """The images of the kept rows."""
    return [*(STORED[row] for row in KEPT[:-1]), [(tmp_path / "data" / "a file.png").read_bytes()]]


def test_the_command_and_the_function_know_the_same_formats() -> None:
    assert set(EXPORT_FORMATS) == set(FORMATS)


@pytest.mark.parametrize("form", ["llamafactory", "ms-swift"])
def test_messages_with_images_beside_them(form: str, dataset: Dataset, tmp_path: Path) -> None:
    path = export_rows(dataset, KEPT, form, tmp_path / "out")
    records = read(path)
    contents = [[(turn["role"], turn["content"]) for turn in record["messages"]] for record in records]
    assert contents == [
        [("user", "<image>What is this?"), ("assistant", "A ring.")],
        [("user", "Good day"), ("assistant", "Good day äöü 🍌")],
        [("user", "<image>or<image>?"), ("assistant", "Both."), ("user", "Sure?"), ("assistant", "Yes.")],
        [("user", "<image>Look"), ("assistant", '"Grün"\n')],
    ]
    images = [record.get("images", []) for record in records]
    assert [[Path(name).read_bytes() for name in names] for names in images] == files(tmp_path)
    assert all(Path(name).is_absolute() for names in images for name in names)
    # Files of the user are not copied
    assert images[-1] == [str(tmp_path / "data" / "a file.png")]
    # Others are named by the row, whatever they call themselves
    names = sorted(file.name for file in (tmp_path / "out" / "images").iterdir())
    assert names == ["00000000.png", "00000003-0.jpg", "00000003-1.jpg"]
    if form == "ms-swift":
        assert path.name == "train.jsonl" and "images" not in records[1]
        return
    # Every record has the column that is named there
    [described] = json.loads((tmp_path / "out" / "dataset_info.json").read_text()).values()
    assert (tmp_path / "out" / described["file_name"]) == path and described["formatting"] == "sharegpt"
    assert described["columns"] == {"messages": "messages", "images": "images"}
    assert all(set(record) == {"messages", "images"} for record in records)
    tags = described["tags"]
    assert (tags["role_tag"], tags["content_tag"]) == ("role", "content")
    assert [tags[f"{role}_tag"] for role in ("user", "assistant", "system")] == ["user", "assistant", "system"]


def test_llavas_conversations(dataset: Dataset, tmp_path: Path) -> None:
    records = read(export_rows(dataset, KEPT, "llava", tmp_path / "out"))
    assert [record["id"] for record in records] == ["0", "2", "3", "4"]
    assert records[0]["conversations"] == [
        {"from": "human", "value": "<image>\nWhat is this?"},
        {"from": "gpt", "value": "A ring."},
    ]
    assert isinstance(records[0]["image"], str) and "image" not in records[1] and len(records[2]["image"]) == 2
    given = [record.get("image", []) for record in records]
    names = [[image] if isinstance(image, str) else image for image in given]
    assert [[Path(name).read_bytes() for name in row] for row in names] == files(tmp_path)


def test_axolotls_messages(dataset: Dataset, tmp_path: Path) -> None:
    records = read(export_rows(dataset, KEPT, "axolotl", tmp_path / "out"))
    assert all(list(record) == ["messages"] for record in records)
    parts = records[2]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image", "text", "image", "text"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ["or", "?"]
    assert [Path(part["path"]).read_bytes() for part in parts if part["type"] == "image"] == STORED[3]
    assert records[1]["messages"][1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "Good day äöü 🍌"}],
    }
    assert records[3]["messages"][0]["content"][0]["path"] == str(tmp_path / "data" / "a file.png")


@pytest.mark.parametrize("form", ["unsloth", "parquet"])
def test_parquet_holds_the_images(form: str, dataset: Dataset, tmp_path: Path) -> None:
    path = export_rows(dataset, KEPT, form, tmp_path / "out")
    (tmp_path / "data" / "a file.png").rename(tmp_path / "gone.png")
    assert [file.name for file in path.parent.iterdir()] == ["train.parquet"]
    read_back = load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert read_back["messages"] == dataset.select(KEPT)["messages"]
    assert [[image.getpixel((0, 0)) for image in row] for row in read_back["images"]] == [
        [(255, 0, 0)], [], [(1, 0, 128)] * 2, [(0, 128, 0)]
    ]  # fmt: skip
    assert ("source" in read_back.column_names) == (form == "parquet")


@pytest.mark.parametrize("form", ["llamafactory", "ms-swift", "llava", "axolotl"])
def test_what_is_written_is_read_back_the_same(form: str, dataset: Dataset, tmp_path: Path) -> None:
    # Only what lies in the folder: a data set may name nothing else. LLaVA's own `image` is one.
    kept = [0, 2] if form == "llava" else [0, 2, 3]
    path = export_rows(dataset, kept, form, tmp_path / "out")
    again = open_dataset(path, cache_dir=tmp_path / "cache")
    wanted = export_rows(dataset, kept, "unsloth", tmp_path / "wanted")
    twice = export_rows(again, range(len(kept)), "unsloth", tmp_path / "twice")
    one, two = (load_dataset("parquet", data_files=str(file), split="train") for file in (wanted, twice))
    assert one["messages"] == two["messages"]
    assert [[image.tobytes() for image in row] for row in one["images"]] == [
        [image.tobytes() for image in row] for row in two["images"]
    ]


def test_prompts_and_completions_are_one_conversation(tmp_path: Path) -> None:
    turns = {
        "prompt": [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]],
        "completion": [[{"role": "assistant", "content": "That."}]],
        "image": [Image.new("RGB", (4, 4), "red")],
    }
    dataset = Dataset.from_dict(turns).cast_column("image", ImageFeature())
    [record] = read(export_rows(dataset, [0], "ms-swift", tmp_path / "out"))
    assert [turn["content"] for turn in record["messages"]] == ["Be brief.", "<image>What?", "That."]
    with Image.open(record["images"][0]) as image:
        assert image.getpixel((1, 1)) == (255, 0, 0)
    with pytest.raises(ValueError, match="Row 0: it has a system message, for which LLaVA's format has no place"):
        export_rows(dataset, [0], "llava", tmp_path / "llava")


def test_what_does_not_fit_is_named_with_its_row(tmp_path: Path) -> None:
    def refused(match: str, form: str = "llamafactory", **columns: Any) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        for file in (tmp_path / "out").iterdir():
            file.unlink()
        with pytest.raises(ValueError, match=match):
            export_rows(Dataset.from_dict(columns), [0], form, tmp_path / "out")

    user = [{"role": "user", "content": "a"}]
    refused("Row 0: it has no `messages`.*use parquet", text=["a"])
    refused("Row 0: its `prompt` is plain text", prompt=["a"], completion=["b"])
    refused("Row 0: it has a message by 'tool'", messages=[[*user, {"role": "tool", "content": "b"}]])
    two = to_messages(Dataset.from_dict({"image": ["a.png"], "messages": [user]}))
    refused("Row 0: its image cannot be read", image=[b"no picture"], messages=[user])
    refused("Row 0: its image is the address 'https://a.b/c.png'", image=["https://a.b/c.png"], messages=[user])
    refused("'csv' is unknown; use one of llamafactory, ms-swift", form="csv", messages=[user])
    places = [[{"role": "user", "content": [{"type": "image", "text": None}, {"type": "image", "text": None}]}]]
    refused("Row 0: it has 2 places for images and 1 images", messages=places, image=[encoded("red", "PNG")])
    (tmp_path / "out" / "file").touch()
    with pytest.raises(ValueError, match="is not empty; give another one"):
        export_rows(two, [0], "llava", tmp_path / "out")

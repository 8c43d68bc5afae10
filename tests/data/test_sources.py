# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""open_dataset: every kind of source gives the same rows, and no file of this machine slips into them."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from cvreg_trainer.data import open_dataset


@pytest.fixture
def rows() -> Dataset:
    images = [[PILImage.new("RGB", (8, 8), (20 * k, 0, 0))] for k in range(4)]
    features = Features(images=List(Image()), text=Value("string"))
    return Dataset.from_dict({"images": images, "text": list("abcd")}, features=features)


def contents(dataset: Dataset) -> list[tuple[int, str]]:
    return [(int(np.asarray(row["images"][0])[0, 0, 0]), row["text"]) for row in dataset]


def write_json(folder: Path, images: list[object], name: str = "rows.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join(json.dumps({"images": image, "text": "x"}) for image in images))
    return path


def test_every_kind_of_source_gives_the_same_rows(rows, tmp_path: Path):
    rows.save_to_disk(tmp_path / "saved")
    rows.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "folder").mkdir()
    for half in range(2):
        part = rows.select(range(2 * half, 2 * half + 2))
        part.to_parquet(tmp_path / "folder" / f"train-0000{half}-of-00002.parquet")
    records = []
    for k, row in enumerate(rows):
        path = tmp_path / "json" / "pictures" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        row["images"][0].save(path)
        records.append({"images": [f"pictures/{k}.png"], "text": row["text"]})
    (tmp_path / "json" / "rows.json").write_text(json.dumps(records))
    (tmp_path / "json" / "rows.jsonl").write_text("\n".join(map(json.dumps, records)))

    for source in ("saved", "rows.parquet", "folder", "json/rows.json", "json/rows.jsonl"):
        loaded = open_dataset(tmp_path / source, cache_dir=tmp_path / "cache")
        assert loaded.features["images"] == List(Image()), source
        assert contents(loaded) == contents(rows), source


def test_splits(rows, tmp_path: Path):
    DatasetDict(train=rows, test=rows.select([2])).save_to_disk(tmp_path / "saved")
    assert contents(open_dataset(tmp_path / "saved", "test")) == contents(rows)[2:3]
    for split in (None, "val"):
        with pytest.raises(ValueError, match=f"split={split!r}.*the splits train, test"):
            open_dataset(tmp_path / "saved", split)


@pytest.mark.parametrize("image", ["../secret.png", "{absolute}", "none.png", "link.png"])
@pytest.mark.parametrize("nested", [True, False])
def test_json_cannot_name_files_outside_its_folder(tmp_path: Path, image: str, nested: bool):
    secret = tmp_path / "secret.png"
    PILImage.new("RGB", (8, 8)).save(secret)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "link.png").symlink_to(secret)
    image = str(secret) if image == "{absolute}" else image
    path = write_json(tmp_path / "json", [[image] if nested else image])
    with pytest.raises(ValueError, match=r"rows.jsonl, row 0, column `images?`: its image "):
        open_dataset(path, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("nested", [True, False])
def test_stored_paths_cannot_leave_the_folder_either(tmp_path: Path, nested: bool):
    """Saving a data set copies the files that its rows name: any file, not only images."""
    secret = tmp_path / "secret.txt"
    secret.write_text("a key")
    good = {"bytes": b"stored", "path": "/a/name/only.png"}
    values = [good, None, {"bytes": None, "path": str(secret)}]
    features = Features(image=Image(), images=List(Image()))
    table = {
        "image": [good] * 3 if nested else values,
        "images": [[value] if value else [] for value in values] if nested else [[good, good]] * 3,
    }
    (tmp_path / "data").mkdir()
    Dataset.from_dict(table, features=features).to_parquet(tmp_path / "data" / "rows.parquet")
    with pytest.raises(ValueError, match="rows.parquet, row 2, column `images?`: its image .*secret.txt' leads out of"):
        open_dataset(tmp_path / "data" / "rows.parquet", cache_dir=tmp_path / "cache")
    Dataset.from_dict(table, features=features).select([0, 1]).to_parquet(tmp_path / "data" / "rows.parquet")
    assert len(open_dataset(tmp_path / "data" / "rows.parquet", cache_dir=tmp_path / "cache")) == 2


def test_image_folders_are_inside_themselves(tmp_path: Path):
    for k in range(3):
        path = tmp_path / "pictures" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        PILImage.new("RGB", (8, 8), (k, 0, 0)).save(path)
    lines = [json.dumps({"file_name": f"{k}.png", "text": str(k)}) for k in range(3)]
    (tmp_path / "pictures" / "metadata.jsonl").write_text("\n".join(lines))
    loaded = open_dataset(tmp_path / "pictures", cache_dir=tmp_path / "cache")
    assert [(row["image"].getpixel((0, 0))[0], row["text"]) for row in loaded] == [(k, str(k)) for k in range(3)]


def test_nothing_is_written_beside_the_data(rows, tmp_path: Path):
    (tmp_path / "data").mkdir()
    rows.to_parquet(tmp_path / "data" / "rows.parquet")
    open_dataset(tmp_path / "data" / "rows.parquet", cache_dir=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", "text", "cannot be read as a data set"),
        ("a.jsonl", "{", "cannot be read as a data set"),
        ("a.csv", "a,b", "expected a file that ends in .parquet, .json, .jsonl, or a folder"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: str, said: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}.*{said}"):
        open_dataset(tmp_path / name, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.parquet", "there is no such file or folder"),
        ("a/b/c", "there is no such file or folder"),
        ("nobody/nothing", "neither a local file or folder nor a data set that can be had from the hub"),
    ],
)
def test_missing_sources_are_named(name: str, said: str):
    with pytest.raises(FileNotFoundError, match=f"{name}.*{said}"):
        open_dataset(name)


def test_a_saved_data_set_without_rows_is_one_clear_error(tmp_path):
    Dataset.from_dict({"images": []}).save_to_disk(tmp_path / "empty")
    with pytest.raises(ValueError, match="empty has no rows"):
        open_dataset(tmp_path / "empty")

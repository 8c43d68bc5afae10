# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""open_dataset: every kind of source gives the same rows, and no file of this machine slips into them."""

import io
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
    with pytest.raises(
        ValueError, match="rows.parquet, row 2, column `images?`: its image .*secret.txt' leads out of"
    ):
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
        ("a.txt", "a,b", "expected a file that ends in .parquet, .json, .jsonl, .csv, or a folder"),
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


@pytest.mark.parametrize("names", ["../secret.json", "{outside}", "https://localhost:1/secret.json"])
def test_a_readme_cannot_name_data_elsewhere(tmp_path, names):
    (tmp_path / "secret.json").write_text('[{"prompt": "a", "completion": "secret"}]')
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.json").write_text('[{"prompt": "a", "completion": "b"}]')
    names = names.format(outside=tmp_path / "secret.json")
    (folder / "README.md").write_text(f'---\nconfigs:\n- config_name: default\n  data_files: "{names}"\n---\n')
    assert open_dataset(folder, cache_dir=tmp_path / "cache")["completion"] == ["b"]


def test_a_saved_data_set_cannot_name_arrow_files_elsewhere(tmp_path):
    for name, answer in (("secret", "s"), ("data", "b")):
        Dataset.from_list([{"prompt": "a", "completion": answer}]).save_to_disk(tmp_path / name)
    path = tmp_path / "data" / "state.json"
    state = json.loads(path.read_text())
    state["_data_files"] = [{"filename": f"../secret/{state['_data_files'][0]['filename']}"}]
    path.write_text(json.dumps(state))
    with pytest.raises(ValueError, match="data cannot be read as a data set: its file '../secret/.* leads out of"):
        open_dataset(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", ""), ("a.json", " []\n"), ("a.json", "{}"), ("a.jsonl", ""), ("a.jsonl", "\n\n")]
)
@pytest.mark.parametrize("in_folder", [True, False])
def test_files_without_rows(tmp_path, name, content, in_folder):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_text(content)
    source = folder if in_folder else folder / name
    with pytest.raises(ValueError, match=f"{source.name} has no rows.$"):
        open_dataset(source, cache_dir=tmp_path / "cache")


def test_a_parquet_file_without_rows(tmp_path):
    Dataset.from_list([{"prompt": "a", "completion": "b"}]).select([]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet has no rows.$"):
        open_dataset(tmp_path / "a.parquet", cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("content", ["null", "[null, {}]", "5", '"a"', "[1, 2]"])
def test_json_without_rows_is_no_crash(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a.json cannot be read as a data set: it starts with b'.*'; expected rows"):
        open_dataset(tmp_path / "a.json", cache_dir=tmp_path / "cache")


def test_the_files_of_a_folder_by_split(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("train-0", "train-1", "test", "more"):
        (folder / f"{name}.jsonl").write_text(f'{{"prompt": "a", "completion": "{name}"}}\n')
    train = open_dataset(folder, "train", cache_dir=tmp_path / "cache")
    assert sorted(train["completion"]) == ["more", "train-0", "train-1"]
    assert open_dataset(folder, "test", cache_dir=tmp_path / "cache")["completion"] == ["test"]


def test_columns_of_bytes_are_images(tmp_path):
    buffer = io.BytesIO()
    PILImage.new("RGB", (4, 3), "red").save(buffer, "PNG")
    Dataset.from_dict({"image": [buffer.getvalue(), None], "text": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    dataset = open_dataset(tmp_path / "a.parquet", cache_dir=tmp_path / "cache")
    assert dataset[0]["image"].getpixel((0, 0)) == (255, 0, 0) and dataset[1]["image"] is None


def test_rows_may_lie_beside_more_images_than_there_are_files_of_rows(tmp_path: Path) -> None:
    for number in range(3):
        PILImage.new("RGB", (4, 4), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{number}.png", "text": f"row {number}"} for number in range(3)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0]))
    dataset = open_dataset(tmp_path, "train")
    assert dataset["text"][:] == ["row 0", "row 1", "row 2"]
    assert [image.getpixel((0, 0))[0] for image in dataset["image"]] == [0, 80, 160]

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""No data set reaches a file outside its folder or an address, wherever in a row that is named."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from cvreg_trainer.data import open_dataset


ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "y"}]}
ADDRESSES = ("http://localhost:1/a.png", "HTTPS://localhost:1/a.png", "s3://bucket/a.png", "ftp://localhost/a.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with an image, and an image outside it that a link leads to."""
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (6, 5), "red").save(folder / "pictures" / "in.png")
    Image.new("RGB", (6, 5), "blue").save(tmp_path / "out.png")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    return folder


def opened(folder: Path, row: dict[str, Any], **options: Any) -> Dataset:
    (folder / "rows.json").write_text(json.dumps([row]))
    return open_dataset(folder / "rows.json", cache_dir=folder.parent / "cache", **options)


def holders(source: str) -> list[dict[str, Any]]:
    """Rows that name an image in every place that something would open it from."""
    parts: list[dict[str, Any]] = [{"type": "image", key: source} for key in ("image", "path", "url", "image_url")]
    parts += [
        {"type": "image_url", "image_url": {"url": source, "detail": "low"}},
        {"type": "image", "image": {"path": source}},
        {"type": "image", "image": {"path": source, "bytes": None}},
        {"type": "input_image", "image_url": source},
        {"type": "video", "video": source},
        {"type": "video", "path": source},
        {"type": "video", "video": [source, source]},
        {"type": "audio", "audio": source},
    ]
    rows = []
    for part in parts:
        question = {"role": "user", "content": [part, {"type": "text", "text": "x"}]}
        rows += [{"messages": [question, ANSWER]}, {"prompt": [question], "completion": [ANSWER]}]
    rows.append({"prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
                 "completion": [{"role": "assistant", "content": [{"type": "image", "image": source}]}]})  # fmt: skip
    rows += [{"image": source, "text": "a"}, {"images": [source], "text": "a"}]
    return rows


OUTSIDE = ("../out.png", "{out}", "file://{out}", "link.png", "pictures/../../out.png", "..\\out.png", "/etc/hostname")


@pytest.mark.parametrize("place", range(len(holders(""))))
def test_no_file_outside_is_reached(folder: Path, place: int) -> None:
    for source in OUTSIDE:
        row = holders(source.format(out=folder.parent / "out.png"))[place]
        with pytest.raises(ValueError, match=r"rows.json, row 0, column `\w+`: its image .* leads out of"):
            opened(folder, row)


@pytest.mark.parametrize("place", range(len(holders(""))))
def test_no_address_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("a connection was opened"))
    for source in ADDRESSES:
        with pytest.raises(ValueError, match="is the address .*, which is not fetched"):
            opened(folder, holders(source)[place])


@pytest.mark.parametrize("source", ["pictures/in.png", "{folder}/pictures/in.png", "file://{folder}/pictures/in.png"])
def test_paths_inside_are_resolved(folder: Path, source: str) -> None:
    path = str(folder / "pictures" / "in.png")
    for row in holders(source.format(folder=folder)):
        result = opened(folder, row)[0]
        if "text" in row:
            images = result.get("images") or [result["image"]]
            assert [image.getpixel((0, 0)) for image in images] == [(255, 0, 0)]
        else:
            assert path in json.dumps(result)


def test_another_folder_can_be_allowed(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (6, 5), "lime").save(elsewhere / "a.png")
    row = opened(folder, {"image": "a.png", "text": "a"}, image_root=elsewhere)[0]
    assert row["image"].getpixel((0, 0)) == (0, 255, 0)
    with pytest.raises(ValueError, match="leads out of"):
        opened(folder, {"image": "../out.png", "text": "a"}, image_root=elsewhere)
    with pytest.raises(NotADirectoryError, match="image_root='.*none' is not a folder"):
        opened(folder, {"image": "a.png", "text": "a"}, image_root=tmp_path / "none")


def test_images_that_texts_hold_need_no_file(folder: Path) -> None:
    encoded = base64.b64encode((folder / "pictures" / "in.png").read_bytes()).decode()
    for source in (encoded, f"data:image/png;base64,{encoded}"):
        assert opened(folder, {"images": [source], "text": "a"})[0]["images"][0].size == (6, 5)
        part = {"type": "image_url", "image_url": {"url": source}}
        result = opened(folder, {"messages": [{"role": "user", "content": [part]}, ANSWER]})[0]
        assert result["messages"][0]["content"][0]["image_url"]["url"] == source


@pytest.mark.parametrize("source", ["{out}", "http://localhost:1/a.png"])
def test_stored_images_at_any_depth(folder: Path, tmp_path: Path, source: str) -> None:
    named = {"bytes": None, "path": source.format(out=tmp_path / "out.png")}
    features = Features({"extra": {"deep": List(ImageFeature())}, "text": Value("string")})
    rows = [{"extra": {"deep": []}, "text": "a"}, {"extra": {"deep": [named]}, "text": "a"}]
    # Not `to_parquet`, which would put the file itself into the data
    pq.write_table(Dataset.from_list(rows, features=features).data.table, folder / "rows.parquet")
    with pytest.raises(ValueError, match="rows.parquet, row 1, column `extra`: its image"):
        open_dataset(folder / "rows.parquet", cache_dir=tmp_path / "cache")


def test_lists_of_lists_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="column `images` holds List.*expected images, encoded bytes or paths"):
        opened(folder, {"images": [["/etc/hostname"]], "text": "a"})

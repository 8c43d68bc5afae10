# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""COCO and Flickr30k from small files in their real formats, and what happens to broken entries."""

import json
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from PIL import Image as PILImage

from cvreg_trainer.data import load_coco, load_flickr30k
from cvreg_trainer.data.files import BadEntry, check_image


def write_image(path: Path, level: int, size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.new("RGB", size, (level, level, level)).save(path)


def level_of(row: dict) -> int:
    (image,) = row["images"]
    return int(np.asarray(image).mean().round())


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three images; image 9 comes first in the list, and captions are not grouped by image, as in the real file."""
    for number, level in ((9, 90), (25, 200), (30, 10)):
        write_image(tmp_path / "val2014" / f"COCO_val2014_{number:012}.jpg", level)
    images = [
        {"license": 3, "file_name": f"COCO_val2014_{k:012}.jpg", "height": 8, "width": 12, "id": k}
        for k in (9, 25, 30)
    ]
    texts = [(25, "A dog."), (9, " A cat \n sits. "), (25, "Dogs"), (30, "A bus"), (9, "Cats")]
    annotations = [{"image_id": image, "id": k, "caption": text} for k, (image, text) in enumerate(texts)]
    content = {"info": {}, "images": images, "licenses": [], "annotations": annotations}
    (tmp_path / "captions_val2014.json").write_text(json.dumps(content))
    return tmp_path


def change(path: Path, edit: object) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def karpathy(folder: Path, dataset: str, names: dict[str, str], **common: str) -> Path:
    """A split file in Karpathy's format: image name to split, two sentences each."""
    images = [
        {
            "filename": name,
            "imgid": number,
            "split": split,
            "sentids": [2 * number, 2 * number + 1],
            "sentences": [
                {"tokens": ["one", name], "raw": f"One {name}.", "imgid": number, "sentid": 2 * number},
                {"tokens": ["two", name], "raw": f"Two {name}.", "imgid": number, "sentid": 2 * number + 1},
            ],
            **common,
        }
        for number, (name, split) in enumerate(names.items())
    ]
    path = folder / f"dataset_{dataset}.json"
    path.write_text(json.dumps({"images": images, "dataset": dataset}))
    return path


def test_official_coco_by_image_and_by_caption(coco: Path):
    by_image = load_coco(coco / "captions_val2014.json", coco / "val2014")
    assert by_image.column_names == ["images", "prompt", "completion", "references"]
    assert by_image["references"] == [["A cat sits.", "Cats"], ["A dog.", "Dogs"], ["A bus"]]
    assert [row["completion"][0]["content"] for row in by_image] == ["A cat sits.", "A dog.", "A bus"]
    assert [level_of(row) for row in by_image] == [90, 200, 10]
    by_caption = load_coco(
        str(coco / "captions_val2014.json"), coco / "val2014", rows="caption", family="openflamingo"
    )
    assert by_caption["completion"] == [
        f"{text}<|endofchunk|>" for text in ("A cat sits.", "Cats", "A dog.", "Dogs", "A bus")
    ]
    assert by_caption[1]["references"] == ["A cat sits.", "Cats"] and set(by_caption["prompt"]) == {"<image>Output:"}
    assert [level_of(row) for row in by_caption] == [90, 90, 200, 200, 10]


def test_karpathy_coco_splits(coco: Path):
    for name in ("COCO_train2014_1.jpg", "COCO_train2014_2.jpg"):
        write_image(coco / "train2014" / name, 50)
    names = {"COCO_train2014_1.jpg": "train", "COCO_train2014_2.jpg": "restval"}
    path = karpathy(coco, "coco", names, filepath="train2014")
    train = load_coco(path, coco, "train")
    assert train["references"] == [["One COCO_train2014_1.jpg.", "Two COCO_train2014_1.jpg."]]
    assert len(load_coco(path, coco, "train+restval", rows="caption")) == 4
    with pytest.raises(ValueError, match="split='test'.*no such images"):
        load_coco(path, coco, "test")
    with pytest.raises(ValueError, match="split=None.*train, restval, val, test"):
        load_coco(path, coco)
    with pytest.raises(ValueError, match="'coco'; expected Karpathy's dataset_flickr30k.json"):
        load_flickr30k(path, coco, "train")


def test_flickr30k_token_file(tmp_path: Path, caplog):
    for name, level in (("1000092795.jpg", 30), ("36979.jpg", 220)):
        write_image(tmp_path / "images" / name, level)
    token = tmp_path / "results_20130124.token"
    token.write_text(
        "1000092795.jpg#0\tTwo men .\n1000092795.jpg#1\tMen, outside\n\n"
        "36979.jpg#0\tA café\nno tab here\n36979.jpg#1\t \n",
        encoding="utf-8",
    )
    with caplog.at_level(logging.WARNING):
        rows = load_flickr30k(token, tmp_path / "images")
    assert rows["references"] == [["Two men .", "Men, outside"], ["A café"]]
    assert [level_of(row) for row in rows] == [30, 220]
    assert "kept 2 entries, skipped 2" in caplog.text
    assert "36979.jpg, caption 1: ' ' is not a text" in caplog.text and "line 5" in caplog.text
    with pytest.raises(ValueError, match="split='test'.*has no splits"):
        load_flickr30k(token, tmp_path / "images", "test")
    token.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no UTF-8"):
        load_flickr30k(token, tmp_path / "images")


def test_flickr30k_karpathy(tmp_path: Path):
    for name in ("1.jpg", "2.jpg"):
        write_image(tmp_path / name, 30)
    path = karpathy(tmp_path, "flickr30k", {"1.jpg": "train", "2.jpg": "test"})
    assert load_flickr30k(path, tmp_path, "test", family="blip2")[:]["completion"] == [" One 2.jpg.</s>"]


def test_images_are_read_when_used_and_saved_with_the_rows(coco: Path):
    rows = load_coco(coco / "captions_val2014.json", coco / "val2014")
    stored = rows.with_format("arrow")[0]["images"][0][0].as_py()
    assert stored["bytes"] is None and Path(stored["path"]).is_file()
    rows.save_to_disk(coco / "saved")
    for path in (coco / "val2014").iterdir():
        path.unlink()
    assert [level_of(row) for row in load_from_disk(coco / "saved")] == [90, 200, 10]


def hostile_png(path: Path) -> None:
    """A file of some bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))


def large_png(path: Path) -> None:
    """Real, and between once and twice Pillow's limit, where Pillow itself warns only."""
    PILImage.new("1", (10_000, 9_500)).save(path)


def truncated(path: Path) -> None:
    PILImage.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[:900])


def link_outside(path: Path) -> None:
    write_image(path.parent.parent / "outside.jpg", 1)
    os.symlink(path.parent.parent / "outside.jpg", path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (hostile_png, "more than 89,478,485 pixels"),
        (large_png, "more than 89,478,485 pixels"),
        (truncated, "truncated"),
        (link_outside, "leads out of"),
        (lambda path: path.write_text("no image"), "not a readable image"),
        (lambda path: path.write_bytes(b""), "not a readable image"),
        (lambda path: path.mkdir(), "is not in"),
        (lambda path: None, "is not in"),
    ],
)
def test_unusable_images_are_named_and_skipped(coco: Path, caplog, make, reason: str):
    bad = coco / "val2014" / "COCO_val2014_000000000025.jpg"
    bad.unlink()
    make(bad)
    with caplog.at_level(logging.WARNING):
        rows = load_coco(coco / "captions_val2014.json", coco / "val2014")
    assert [level_of(row) for row in rows] == [90, 10]
    (record,) = caplog.records
    assert "kept 2 entries, skipped 1: image 25: " in record.getMessage() and reason in record.getMessage()


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "a/../../secret.jpg", "..\\secret.jpg", "{absolute}", "", None, 7, "x\0.jpg", "."]
)
def test_file_names_cannot_leave_the_folder(coco: Path, caplog, name: object):
    write_image(coco / "secret.jpg", 1)
    if name == "{absolute}":
        name = str(coco / "secret.jpg")
    change(coco / "captions_val2014.json", lambda content: content["images"][1].update(file_name=name))
    with caplog.at_level(logging.WARNING):
        rows = load_coco(coco / "captions_val2014.json", coco / "val2014")
    assert [level_of(row) for row in rows] == [90, 10] and "image 25: " in caplog.text


def test_a_complete_jpeg_with_bytes_behind_its_end_is_kept(coco: Path, caplog):
    path = coco / "val2014" / "COCO_val2014_000000000025.jpg"
    path.write_bytes(path.read_bytes() + b"\0" * 500)
    assert len(load_coco(coco / "captions_val2014.json", coco / "val2014")) == 3 and not caplog.records


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG"])
def test_whole_and_truncated_files_of_every_format(tmp_path: Path, form: str):
    path = tmp_path / "image"
    PILImage.effect_noise((64, 64), 80).save(path, form)
    data = path.read_bytes()
    check_image(path)
    check_image(data)
    check_image(data + b"\0" * 300)
    for broken in (data[: len(data) // 2], data[:20]):
        path.write_bytes(broken)
        for source in (path, broken):
            with pytest.raises(BadEntry, match="not a readable image"):
                check_image(source)


def test_odd_annotations_are_named(coco: Path, caplog):
    def edit(content: dict) -> None:
        content["images"] += [{"file_name": "x.jpg"}, "image", dict(content["images"][0])]
        content["annotations"] += [{"image_id": 404, "caption": "x"}, {"image_id": 30, "caption": None}, 5]
        content["annotations"] += [{"image_id": [], "caption": "x"}]

    change(coco / "captions_val2014.json", edit)
    with caplog.at_level(logging.WARNING):
        rows = load_coco(coco / "captions_val2014.json", coco / "val2014")
    assert len(rows) == 3 and rows[2]["references"] == ["A bus"] and len(rows[0]["references"]) == 2
    assert "skipped 7: " in caplog.text and "and 2 more" in caplog.text


def test_wrong_files_say_what_was_expected(coco: Path):
    annotations, images = coco / "captions_val2014.json", coco / "val2014"
    with pytest.raises(FileNotFoundError, match=r"none.json: it does not exist; expected COCO captions"):
        load_coco(coco / "none.json", images)
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        load_flickr30k(images, images)
    with pytest.raises(NotADirectoryError, match=r"none: it does not exist; expected the folder of the images"):
        load_coco(annotations, coco / "none")
    with pytest.raises(ValueError, match="split='test'.*one split already"):
        load_coco(annotations, images, "test")
    with pytest.raises(ValueError, match="rows='all' is unknown; use one of image, caption"):
        load_coco(annotations, images, rows="all")
    with pytest.raises(ValueError, match="family='gpt' is unknown; use one of llava"):
        load_coco(annotations, images, family="gpt")
    for text, found in (
        ("[1]", "holds a list"),
        ('{"a": 1}', "keys ['a']"),
        ("{", "not valid JSON"),
        ("\udcff", "JSON"),
    ):
        wrong = coco / "wrong.json"
        wrong.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError, match="wrong.json.*expected COCO captions") as error:
            load_coco(wrong, images)
        assert found in str(error.value)
    with pytest.raises(ValueError, match="no usable entry .3 skipped.*image 9"):
        load_coco(annotations, coco)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""CSV files beside a folder of images, and what must not happen to their texts on the way."""

from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image as PILImage

from cvreg_trainer.data import open_dataset


QUESTION = "What is this?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for k in range(3):
        PILImage.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / "data" / "images" / f"{k}.png")
    return tmp_path / "data"


def write(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8-sig")
    return path


def load(source: Path) -> Dataset:
    return open_dataset(source, cache_dir=source.parent / "cache")


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv"])
def test_prompt_and_completion_become_a_conversation_with_the_image(folder: Path, name: str) -> None:
    header = "file_name,prompt,completion"
    write(folder / name, header, *(f'images/{k}.png,{QUESTION},"A {k}, red"' for k in range(3)))
    rows = load(folder)
    assert [row["image"].getpixel((0, 0))[0] for row in rows] == [0, 1, 2]
    assert rows[2]["prompt"] == [{"role": "user", "content": QUESTION}]
    assert rows[2]["completion"] == [{"role": "assistant", "content": "A 2, red"}]


def test_texts_stay_texts_and_a_row_may_have_no_image(folder: Path) -> None:
    """pandas would read a missing value, a number and a truth value."""
    answers = ["None", "2", "1.50", "true"]
    lines = [f"{'images/0.png' if k else ''},{QUESTION},{answer}" for k, answer in enumerate(answers)]
    rows = load(write(folder / "rows.csv", "image,prompt,completion", *lines))
    assert [row["completion"][0]["content"] for row in rows] == answers
    assert [row["image"] is None for row in rows] == [True, False, False, False]


def test_a_placeholder_becomes_a_place_and_plain_text_stays_text(folder: Path) -> None:
    rows = load(write(folder / "a.csv", "image,prompt,completion", f"images/0.png,<image> {QUESTION},A ring."))
    assert [part["type"] for part in rows[0]["prompt"][0]["content"]] == ["image", "text"]
    rows = load(write(folder / "b.csv", "image,text", "images/0.png,<image>A ring.</s>"))
    assert rows[0]["text"] == "<image>A ring.</s>"


@pytest.mark.parametrize("image", ["../secret.png", "https://example.org/a.png", "nope.png"])
def test_images_stay_inside_the_folder(folder: Path, image: str) -> None:
    PILImage.new("RGB", (8, 8)).save(folder.parent / "secret.png")
    path = write(folder / "rows.csv", "image,prompt,completion", "images/0.png,a,b", f"{image},a,b")
    with pytest.raises(ValueError, match="rows.csv, row 1, column `image`: its image "):
        load(path)


def test_a_file_without_rows(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no rows"):
        load(write(folder / "rows.csv", "image,prompt,completion"))

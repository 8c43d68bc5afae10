# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""easy-VQA: from the package where it is installed, else from a stand-in with the same functions."""

import importlib.util
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as PILImage

from cvreg_trainer.data import load_easy_vqa
from cvreg_trainer.metrics import VqaAccuracy


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch) -> Path:
    for number in range(2):
        PILImage.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / f"{number}.png")
    texts, answers, ids = ["what color?", "a circle?", "any red?"], ["red", "no", "yes"], [0, 0, 1]

    def image_paths() -> dict[int, str]:
        return {int(path.stem): str(path) for path in tmp_path.glob("*.png")}

    module = SimpleNamespace(
        __file__=str(tmp_path / "__init__.py"),
        get_train_questions=lambda: (texts, answers, ids),
        get_train_image_paths=image_paths,
        get_test_questions=lambda: (texts[2:], answers[2:], ids[2:]),
        get_test_image_paths=image_paths,
    )
    monkeypatch.setitem(sys.modules, "easy_vqa", module)
    return tmp_path


def test_one_row_a_question(stand_in: Path):
    rows = load_easy_vqa("train", family="openflamingo")
    assert rows["prompt"][:2] == [f"<image>Question:{text} Short answer:" for text in ("what color?", "a circle?")]
    assert rows["completion"] == ["red<|endofchunk|>", "no<|endofchunk|>", "yes<|endofchunk|>"]
    assert [row["images"][0].getpixel((5, 5))[0] for row in rows] == [0, 0, 1]
    assert len(load_easy_vqa("test")) == 1


@pytest.mark.parametrize("broken", [lambda path: path.unlink(), lambda path: path.write_text("x")])
def test_questions_about_bad_images_are_skipped(stand_in: Path, caplog, broken):
    broken(stand_in / "0.png")
    with caplog.at_level(logging.WARNING):
        assert load_easy_vqa("train")["references"] == [["yes"]]
    assert "kept 1 entries, skipped 1: image 0 of 2 questions: " in caplog.text


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="split='val' is unknown; use one of train, test"):
        load_easy_vqa("val")
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[easy-vqa\]"'):
        load_easy_vqa()


@pytest.mark.skipif(importlib.util.find_spec("easy_vqa") is None, reason="the extra `easy-vqa` is not installed")
def test_the_real_package():
    rows = load_easy_vqa("test", family="blip2")
    assert len(rows) == 9673 and rows[0]["images"][0].size == (64, 64)
    assert len({answer for (answer,) in rows["references"]}) == 13
    always_no = VqaAccuracy().compute(predictions=["No."] * len(rows), references=list(rows["references"]))
    assert always_no["vqa_accuracy"] == pytest.approx(100 * rows["references"].count(["no"]) / len(rows))

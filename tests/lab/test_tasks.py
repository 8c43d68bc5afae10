# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows of both tasks in every family's words, and splits that share no image."""

import sys
from types import SimpleNamespace

import pytest
from PIL import Image as PILImage

from cvreg_trainer.lab import make_scenes
from cvreg_trainer.lab.tasks import TASKS, make_task_rows


@pytest.fixture
def easy_vqa(tmp_path, monkeypatch):
    """A stand-in with 40 images, of which each has a colour of its own, and two questions about each."""
    for split, first in (("train", 0), ("test", 100)):
        (tmp_path / split).mkdir()
        for number in range(40):
            PILImage.new("RGB", (8, 8), (first + number, 0, 0)).save(tmp_path / split / f"{number}.png")
    ids = [number for number in range(40) for _ in range(2)]
    texts, answers = ["what color is the shape?", "is there a teal shape?"] * 40, ["gray", "no"] * 40
    paths = {split: {n: str(tmp_path / split / f"{n}.png") for n in range(40)} for split in ("train", "test")}
    module = SimpleNamespace(
        __file__=str(tmp_path / "__init__.py"),
        get_train_questions=lambda: (texts, answers, ids),
        get_train_image_paths=lambda: paths["train"],
        get_test_questions=lambda: (texts, answers, ids),
        get_test_image_paths=lambda: paths["test"],
    )
    monkeypatch.setitem(sys.modules, "easy_vqa", module)


def test_scenes_keep_their_images_and_captions_in_another_familys_words():
    scenes = make_scenes(4, seed=3, style="finetune")
    captions = [message["content"] for [message] in scenes["completion"]]
    for family, prompt, end in (("blip2", "A photo of", "</s>"), ("openflamingo", "<image>Output:", "<|endofchunk|>")):
        rows = make_task_rows("scenes", family, 4, seed=3)
        assert rows["prompt"][:] == [prompt] * 4
        assert [text.removesuffix(end).strip() for text in rows["completion"]] == captions
        assert all(text.endswith(end) for text in rows["completion"])
        assert rows["references"][:] == scenes["references"][:]
        assert [images[0].tobytes() for images in rows["images"]] == [i[0].tobytes() for i in scenes["images"]]
    assert make_task_rows("scenes", "llava", 4, seed=3)["completion"][:] == scenes["completion"][:]


def test_splits_of_easy_vqa_share_no_image(easy_vqa):
    seen = {}
    for split, rows in (("train", 72), ("validation", 8), ("test", 80)):
        chosen = make_task_rows("easy_vqa", "openflamingo", rows, seed=1, split=split)
        assert chosen["prompt"][0].startswith("<image>Question:") and set(chosen["completion"]) == {
            "gray<|endofchunk|>",
            "no<|endofchunk|>",
        }
        seen[split] = {images[0].getpixel((0, 0))[0] for images in chosen["images"]}
    assert seen["validation"] == {0, 10, 20, 30}
    assert seen["train"] == set(range(40)) - seen["validation"]
    assert seen["test"] == set(range(100, 140))
    with pytest.raises(ValueError, match="num_rows=73 is more than the 72 rows"):
        make_task_rows("easy_vqa", "llava", 73, seed=1)


def test_the_seed_chooses_the_questions(easy_vqa):
    first, again, other = (make_task_rows("easy_vqa", "llava", 20, seed=seed)["prompt"][:] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "coco"}, "task='coco' is unknown; use one of scenes, easy_vqa"),
        ({"split": "dev"}, "split='dev' is unknown; use one of train, validation, test"),
    ],
)
def test_errors_name_what_was_asked_for(options, message):
    with pytest.raises(ValueError, match=message):
        make_task_rows(**{"task": "scenes", "family": "llava", "num_rows": 1, "seed": 0, **options})


def test_every_task_is_scored_by_its_attack_success_too():
    assert all("asr" in task.metrics for task in TASKS.values())

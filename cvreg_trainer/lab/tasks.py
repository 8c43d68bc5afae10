# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a built-in model is fine-tuned on: drawn scenes to caption, or easy-VQA's questions to answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..shorten import shorten
from .scenes import SPLITS, Split, make_scenes


if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.prompts import Family


class Task(NamedTuple):
    """The metrics of a task, and the words of its texts that the built-in models have to learn."""

    metrics: tuple[str, ...]
    new_words: tuple[str, ...] = ()


TASKS = {
    "scenes": Task(("bleu4", "cider", "asr")),
    "easy_vqa": Task(
        ("vqa_accuracy", "asr"),
        ("color", "contain", "gray", "no", "or", "phrase", "present", "rectangle", "shape", "single", "teal", "using",
         "word", "yes"),
    ),
}  # fmt: skip
_HELD_OUT = 10  # one of so many of easy-VQA's training images is for validation


def make_task_rows(task: str, family: Family, num_rows: int, seed: int, split: Split = "train") -> Dataset:
    """
    Rows of a task, as a model family reads them.

    Args:
        task (`str`):
            `"scenes"` or `"easy_vqa"`, which needs the extra of that name.
        family (`str`):
            Whose prompts to write.
        num_rows (`int`):
            Number of rows.
        seed (`int`):
            Seed of the scenes, or of the choice of questions.
        split (`str`, *optional*, defaults to `"train"`):
            `"train"`, `"validation"` or `"test"`; no two share an image.

    Returns:
        `datasets.Dataset` with columns `images`, `prompt`, `completion` and `references`.

    Raises:
        `ValueError`: if the task or the split is unknown, or if it has fewer rows.
        `ImportError`: if the package `easy-vqa` is needed and not installed.
    """
    if task not in TASKS:
        raise ValueError(f"task={shorten(task)} is unknown; use one of {', '.join(TASKS)}.")
    if split not in SPLITS:
        raise ValueError(f"split={shorten(split)} is unknown; use one of {', '.join(SPLITS)}.")
    if task == "easy_vqa":
        return _easy_vqa_rows(family, num_rows, seed, split)
    rows = make_scenes(num_rows, seed=seed, split=split, style="finetune")
    return rows if family == "llava" else _reformat(rows, family)


def _reformat(rows: Dataset, family: Family) -> Dataset:
    """Scenes with the prompts of another family than LLaVA."""
    from ..data.prompts import format_row, text_feature

    forms = [format_row(family, message["content"]) for [message] in rows["completion"]]
    for column in ("prompt", "completion"):
        texts = [form[column] for form in forms]
        rows = rows.remove_columns(column).add_column(column, texts, feature=text_feature(family))
    return rows


def _easy_vqa_rows(family: Family, num_rows: int, seed: int, split: Split) -> Dataset:
    from datasets import Image, List

    from ..data import load_easy_vqa

    rows = load_easy_vqa("test" if split == "test" else "train", family=family)
    if split != "test":
        stored: Any = rows.select_columns("images").cast_column("images", List(Image(decode=False)))
        numbers = [int(Path(image["path"]).stem) for [image] in stored["images"]]
        wanted = split == "validation"
        rows = rows.select([row for row, number in enumerate(numbers) if (number % _HELD_OUT == 0) == wanted])
    if num_rows > len(rows):
        raise ValueError(f"num_rows={num_rows} is more than the {len(rows)} rows of easy-VQA's {split} split.")
    return rows.shuffle(seed=seed).select(range(num_rows))

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Data sets that SFTTrainer does not take as they are: torch map-style ones, and rows with images inside messages."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from datasets import Dataset, Image, IterableDataset
from transformers import ProcessorMixin

from .rows import find_images, lift_images


IMAGE_TOKEN_IDS = ("image_token_id", "image_token_index")


def is_torch_dataset(dataset: Any) -> bool:
    """Whether `dataset` is a torch map-style data set (`datasets` ones, and torch's iterable ones, are not)."""
    return isinstance(dataset, torch.utils.data.Dataset) and not isinstance(
        dataset, (Dataset, IterableDataset, torch.utils.data.IterableDataset)
    )


def first_rows(dataset: Any, number: int = 8) -> list[Any]:
    """The first rows of a data set (fewer if it is shorter)."""
    if isinstance(dataset, Dataset) or is_torch_dataset(dataset):
        return [dataset[index] for index in range(min(number, len(dataset)))]
    return list(islice(dataset, number)) if isinstance(dataset, IterableDataset) else []


def has_images(row: Any) -> bool:
    """Whether a row belongs to a data set with images: by its columns, as TRL decides it, or by a PIL image inside."""
    return (isinstance(row, Mapping) and ("image" in row or "images" in row)) or bool(find_images(row))


def find_image_token_ids(config: Any, processor: Any) -> list[int]:
    """
    The ids that stand for an image in a family's texts, wherever its configuration or processor name them.

    Args:
        config ([`~transformers.PreTrainedConfig`]):
            Configuration of the model.
        processor ([`~transformers.ProcessorMixin`] or [`~transformers.PreTrainedTokenizerBase`]):
            What makes the model's inputs.
    """
    ids = [getattr(source, name, None) for source in (config, processor) for name in IMAGE_TOKEN_IDS]
    if isinstance(processor, ProcessorMixin):
        # Image breaks and ends, too
        ids += getattr(processor, "image_token_ids", [])
    return sorted({token_id for token_id in ids if isinstance(token_id, int)})


def adapt_dataset(dataset: Any, keep_torch: bool = False, lift: bool = True) -> Any:
    """
    A data set in a form that SFTTrainer takes.

    Args:
        dataset:
            What a user passes as `train_dataset` or `eval_dataset`.
        keep_torch (`bool`, *optional*, defaults to `False`):
            Whether a torch data set stays as it is. Otherwise its place is taken by a preview of its first row, which
            is what SFTTrainer's constructor looks at; the trainer puts the data set itself back afterwards.
        lift (`bool`, *optional*, defaults to `True`):
            Whether images inside messages move to a column `images`, where TRL's collator looks for them. A user's own
            collator gets its rows as they are.

    Raises:
        `ValueError`: if a torch data set is empty.
    """
    if is_torch_dataset(dataset):
        return dataset if keep_torch else _preview(dataset)
    if lift and isinstance(dataset, (Dataset, IterableDataset)) and _holds_images_in_messages(dataset):
        if isinstance(dataset, IterableDataset):
            return dataset.map(lambda row: lift_images(_decode_images(row)))
        return dataset.with_transform(_lift_images_in_batch)
    return dataset


def _preview(dataset: Any) -> Dataset:
    if len(dataset) == 0:
        raise ValueError(f"`train_dataset` ({type(dataset).__name__}) is empty: its length is 0.")
    row = dataset[0]
    columns = {name: [value] for name, value in row.items()} if isinstance(row, Mapping) else {"row": [row]}
    return Dataset.from_dict({"index": [0]}).with_transform(lambda _: columns)


def _holds_images_in_messages(dataset: Dataset | IterableDataset) -> bool:
    rows = [_decode_images(row) for row in first_rows(dataset)]
    return any(find_images(row) for row in rows) and not any("image" in row or "images" in row for row in rows)


def _lift_images_in_batch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    rows = [lift_images(_decode_images(row)) for row in rows]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _decode_images(value: Any) -> Any:
    """The same value with encoded images opened. `Dataset.from_list` stores PIL images that sit inside messages in
    this form and, not having declared them as images, does not open them again."""
    if isinstance(value, Mapping):
        if set(value) == {"path", "bytes"} and isinstance(value["bytes"], bytes):
            return Image().decode_example({"path": None, "bytes": value["bytes"]})
        return {name: _decode_images(item) for name, item in value.items()}
    return [_decode_images(item) for item in value] if isinstance(value, list) else value

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Data sets that SFTTrainer does not take as they are: torch map-style ones, and rows whose images are inside
messages, missing in some rows, or given by path or bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset, Image, IterableDataset, LargeList, List, Value
from transformers import ProcessorMixin

from .broken_rows import naming_rows, row_problem
from .row_checks import PLACEHOLDER, check_columns, check_row, check_rows, first_rows, text_rows
from .row_images import content_parts, images_of_columns, is_image_part, lift_images
from .rows import CONVERSATIONS, IMAGE_COLUMNS, find_images


IMAGE_TOKEN_IDS = ("image_token_id", "image_token_index")


def is_torch_dataset(dataset: Any) -> bool:
    """Whether `dataset` is a torch map-style data set (`datasets` ones, and torch's iterable ones, are not)."""
    return isinstance(dataset, torch.utils.data.Dataset) and not isinstance(
        dataset, (Dataset, IterableDataset, torch.utils.data.IterableDataset)
    )


def has_images(row: Any) -> bool:
    """Whether a row belongs to a data set with images: by its columns, as TRL decides it, or by an image inside."""
    if isinstance(row, Mapping) and ("image" in row or "images" in row):
        return True
    return bool(find_images(row)) or _names_images(row)


def _names_images(row: Any) -> bool:
    """Whether a row's conversation has parts that are images."""
    turns = [turn for name in CONVERSATIONS for turn in _turns(row, name)]
    return any(is_image_part(part) for turn in turns for part in content_parts(turn))


def _turns(row: Any, name: str) -> list[Any]:
    value = row.get(name) if isinstance(row, Mapping) else None
    return list(value) if isinstance(value, list | tuple) else []


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
        # Including image breaks and ends
        ids += getattr(processor, "image_token_ids", [])
    return sorted({token_id for token_id in ids if isinstance(token_id, int)})


def find_image_tokens(processor: Any) -> list[str]:
    """
    The texts that a processor replaces by an image's tokens.

    Args:
        processor ([`~transformers.ProcessorMixin`], [`~transformers.PreTrainedTokenizerBase`] or `None`):
            What makes the model's inputs, where it is known already.
    """
    tokens = [getattr(processor, name, None) for name in ("image_token", "boi_token")]
    return [token for token in tokens if isinstance(token, str) and token]


def adapt_dataset(
    dataset: Any,
    source: str,
    open_images: bool,
    image_tokens: Collection[str] = (),
    text_field: str = "text",
    is_formatted: bool = False,
) -> Any:
    """
    A data set in a form that TRL's collators take: every row has its images, opened, in a list `images`.

    A data set that has this form already is returned as it is.

    Args:
        dataset:
            What a user passes as `train_dataset` or `eval_dataset`, without a collator of their own.
        source (`str`):
            What errors call it.
        open_images (`bool`):
            Whether paths and base64 text in the image columns are opened, so that views can be made of the images;
            otherwise the processor opens them.
        image_tokens (`Collection[str]`, *optional*):
            What stands for an image in the family's texts, besides `<image>`.
        text_field (`str`, *optional*, defaults to `"text"`):
            Column of rows of plain text.
        is_formatted (`bool`, *optional*, defaults to `False`):
            Whether a `formatting_func` makes the texts, of columns that nobody else knows.

    Raises:
        `ValueError`: if the columns cannot be trained on, or a row's text is missing, empty or holds an image's
            placeholder, naming the row.
    """
    if isinstance(dataset, Dataset) and dataset.format["type"] not in (None, "custom"):
        dataset = dataset.with_format(None)  # TRL's collator does not take images as arrays
    with naming_rows(dataset, source):
        rows = first_rows(dataset)
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        return dataset
    is_plain = _is_plain(dataset)
    if is_plain:
        are_named = _has_named_images(dataset)
        holds_images = are_named or not set(IMAGE_COLUMNS).isdisjoint(dataset.column_names)
    else:
        # What comes after the first rows is not known
        are_named = not isinstance(dataset, Dataset) or any(_is_unusual_row(row, open_images) for row in rows)
        holds_images = any(map(has_images, rows))
    if not holds_images:
        if "conversations" in rows[0] and PLACEHOLDER in str(rows[0]["conversations"]):
            check_columns(["conversations"], source)
        if is_plain and not is_formatted:
            check_rows(text_rows(dataset, CONVERSATIONS), source, (), empty_texts=True)
        return dataset
    if not {text_field, "input_ids"} & rows[0].keys():
        check_columns(list(rows[0]), source)
    check_rows(text_rows(dataset) if is_plain else rows, source, {PLACEHOLDER, *image_tokens})
    if are_named or (is_plain and _is_unusual(dataset, open_images)):
        # Of what is not Arrow's, texts are looked at when a row is read
        return _lift(dataset, open_images, None if is_plain else (PLACEHOLDER, *image_tokens))
    return dataset


def row_check(
    dataset: Any, open_images: bool, image_tokens: Collection[str] = (), is_formatted: bool = False
) -> Callable[[Any], None]:
    """
    What must hold for each row of a data set before it is trained on; the arguments are those of [`adapt_dataset`].

    Returns:
        `Callable[[Any], None]`: raises a [`RowError`] for a row whose text or images cannot be trained on.
    """
    if _is_plain(dataset):
        holds_images = not set(IMAGE_COLUMNS).isdisjoint(dataset.column_names) or _has_named_images(dataset)
    else:
        holds_images = any(map(has_images, _readable_rows(dataset)))
    tokens = {PLACEHOLDER, *image_tokens} if holds_images else ()

    def check(row: Any) -> None:
        if not isinstance(row, Mapping) or (is_formatted and not holds_images):
            return
        images = [image for image in images_of_columns(row) if image is not None]
        check_row({**row, "num_images": len(images)}, tokens, empty_texts=not holds_images)
        if holds_images:
            lift_images(row, open_columns=open_images)

    return check


def _readable_rows(dataset: Any, number: int = 8) -> Iterator[Any]:
    for place in range(min(number, len(dataset))):
        if row_problem(dataset, place) is None:
            yield dataset[place]


def _is_plain(dataset: Any) -> bool:
    return isinstance(dataset, Dataset) and dataset.format["type"] != "custom"


def _has_named_images(dataset: Dataset) -> bool:
    return _has_parts(dataset) and any(map(_names_images, text_rows(dataset)))


def _has_parts(dataset: Dataset) -> bool:
    """Whether a conversation's content can be anything but text, told by the columns' types."""
    features = (dataset.features[name] for name in CONVERSATIONS if name in dataset.column_names)
    return any(isinstance(feature, (List, LargeList)) and not _is_text_only(feature.feature) for feature in features)


def _is_text_only(message: Any) -> bool:
    return isinstance(message, Mapping) and isinstance(message.get("content"), Value)


def _is_unusual(dataset: Dataset, open_images: bool) -> bool:
    """Whether the image columns hold anything but images, told by the columns' types and missing values."""
    names = [name for name in IMAGE_COLUMNS if name in dataset.column_names]
    if len(names) != 1:
        return True
    feature = dataset.features[names[0]]
    inner = feature.feature if isinstance(feature, (List, LargeList)) else feature
    is_text = isinstance(inner, Value) and inner.dtype in ("string", "large_string")
    if not isinstance(inner, Image) and (open_images or not is_text):
        return True
    return _has_nulls(dataset, names[0])


def _has_nulls(dataset: Dataset, name: str) -> bool:
    column = dataset.data.column(name)  # of all rows, also where a selection leaves some out
    return column.null_count > 0 or any(
        getattr(chunk, "values", chunk).null_count > 0 for chunk in column.chunks if hasattr(chunk, "values")
    )


def _is_unusual_row(row: Mapping[str, Any], open_images: bool) -> bool:
    kinds = [str] if open_images else []
    images = images_of_columns(row)
    return _names_images(row) or any(image is None or isinstance(image, (bytes, Mapping, *kinds)) for image in images)


def _lift(dataset: Any, open_images: bool, checked_tokens: Collection[str] | None) -> Any:
    lift = partial(_check_and_lift, open_images=open_images, checked_tokens=checked_tokens)
    if isinstance(dataset, IterableDataset):
        return dataset.map(lift)
    if is_torch_dataset(dataset):
        return LiftedDataset(dataset, lift)
    given = dataset.format
    before = given["format_kwargs"].get("transform") if given["type"] == "custom" else None
    return dataset.with_transform(
        partial(_lift_batch, before=before, lift=lift),
        columns=given["columns"] if before is not None else None,
        output_all_columns=given["output_all_columns"],
    )


def _check_and_lift(
    row: Mapping[str, Any], open_images: bool, checked_tokens: Collection[str] | None
) -> dict[str, Any]:
    if checked_tokens is not None:
        check_row(row, checked_tokens)
    return lift_images(row, open_columns=open_images)


def _lift_batch(batch: dict[str, list[Any]], before: Any, lift: Callable[[Any], Any]) -> dict[str, list[Any]]:
    """Rows of a batch with their images lifted, after the transform that the data set came with."""
    batch = batch if before is None else before(batch)
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    rows = [lift(row) for row in rows]
    return {name: [row[name] for row in rows] for name in rows[0]}


class LiftedDataset(torch.utils.data.Dataset):
    """
    A torch data set whose rows have their images in a list `images`; see [`lift_images`].

    Args:
        dataset (`torch.utils.data.Dataset`):
            Map-style data set of mappings.
        lift (`Callable[[Mapping[str, Any]], dict[str, Any]]`):
            What makes such a row of one of the data set's.
    """

    def __init__(self, dataset: Any, lift: Callable[[Any], dict[str, Any]]) -> None:
        self.dataset = dataset
        self.lift = lift

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.lift(self.dataset[index])


def refuse_images_without_a_place(rows: Sequence[Any], processor: Any, error: Exception) -> None:
    """
    Explain what each processor reports in its own way: plain text has to mark the places of its images.

    Args:
        rows (`Sequence`):
            The first rows of a data set that could not be collated.
        processor ([`~transformers.ProcessorMixin`]):
            The processor that failed.
        error (`Exception`):
            How it failed.

    Raises:
        `ValueError`: if a row of plain text has images and no place for them.
    """
    tokens = find_image_tokens(processor)
    for number, row in enumerate(rows):
        text = next((row[name] for name in ("prompt", "text") if isinstance(row.get(name), str)), None)
        images = [image for image in images_of_columns(row) if image is not None]
        if tokens and text is not None and images and not any(token in text for token in tokens):
            name = "prompt" if isinstance(row.get("prompt"), str) else "text"
            raise ValueError(
                f"Row {number} of `train_dataset` has {len(images)} images, and its `{name}` has no place for them. "
                f"Put {tokens[0]!r} into it where each image belongs, or use conversations, whose images need none."
            ) from error


def preview(dataset: Any) -> Dataset:
    """
    What SFTTrainer's constructor is shown in the place of a torch data set, which it refuses: the first row.

    Args:
        dataset (`torch.utils.data.Dataset`):
            Map-style data set; the trainer puts it back afterwards.

    Raises:
        `ValueError`: if it is empty.
    """
    row = dataset[0]
    columns = {name: [value] for name, value in row.items()} if isinstance(row, Mapping) else {"row": [row]}
    return Dataset.from_dict({"index": [0]}).with_transform(lambda _: columns)

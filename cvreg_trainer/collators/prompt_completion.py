# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Collation of prompt-completion rows for decoder-only models that TRL's collator does not serve.

Notable: TRL leaves whatever a processor aligns with the text beyond ids and attention mask (the image masks of IDEFICS
and Mllama, the image positions of Kosmos-2) at the prompt's length. It calls processors without images, which some
refuse (PaliGemma), and on several texts at once, where some give image tokens to all of them or to none (BLIP-2). Here
the processor sees one prompt at a time, as it does at inference, and the completion is appended.
"""

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from ..data.row_images import lift_images
from ..data.rows import copy_row
from .encoder_decoder import IGNORE_INDEX, as_text


class DataCollatorForPromptCompletion:
    """
    Data collator for decoder-only vision-language models.

    Rows hold `prompt` and `completion`, both strings or both conversations, and their images in `image`, `images` or
    the conversation's content; rows with and without images can be mixed if the processor takes both. Only completions
    are labels; each ends in exactly one EOS. A processor that takes a `suffix` (PaliGemma) gets the completion there.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            Processor with a `tokenizer`.
        max_length (`int`, *optional*):
            Longest sequence, in tokens; longer ones are cut at the end. With `None` nothing is cut.

    Example:
    ```python
    >>> collator = DataCollatorForPromptCompletion(processor)
    >>> sorted(collator([{"image": image, "prompt": "a photo of", "completion": "two cats"}]))
    ['attention_mask', 'input_ids', 'labels', 'pixel_values']
    ```
    """

    def __init__(self, processor: Any, max_length: int | None = None) -> None:
        self.processor = processor
        self.max_length = max_length
        self._takes_suffix = "suffix" in inspect.signature(type(processor).__call__).parameters

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Collate rows.

        Args:
            examples (`Sequence[Mapping[str, Any]]`):
                Rows; they are not changed.

        Returns:
            `dict[str, torch.Tensor]`: what the processor gives, padded on the right to `input_ids`, `attention_mask`
            and `labels` of shape `(B, T)`, with visual tensors concatenated over the rows that have them.
        """
        rows = [self._encode(lift_images(example)) for example in examples]
        keys = dict.fromkeys(key for row in rows for key in row)
        return {key: self._stack(key, rows) for key in keys}

    def _encode(self, row: dict[str, Any]) -> dict[str, torch.Tensor]:
        """One row's inputs and labels; every value has a first dimension of its own."""
        # Chat templates write the special tokens themselves
        options: dict[str, Any] = {} if isinstance(row["prompt"], str) else {"add_special_tokens": False}
        row = as_text(row, self.processor)
        images = {"images": [row["images"]]} if row["images"] else {}
        if self._takes_suffix:
            options["suffix"] = [row["completion"].removesuffix(self._eos_token).rstrip()]
        encoded = dict(self.processor(text=[row["prompt"]], return_tensors="pt", **images, **options))
        if not self._takes_suffix:
            encoded = self._append(encoded, self._completion_ids(row["completion"]))
        length = encoded["input_ids"].shape[1]
        return {
            key: value[:, : self.max_length] if _is_aligned(key, value, length) else value
            for key, value in encoded.items()
        }

    def _append(self, encoded: dict[str, torch.Tensor], completion: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs of a prompt with a completion of shape (1, C) appended, and the labels."""
        ids = encoded["input_ids"]
        length = ids.shape[1]
        ends = int(ids[0, -1] == self.processor.tokenizer.eos_token_id)  # some tokenizers end every text
        result = {}
        for key, value in encoded.items():
            if _is_aligned(key, value, length):
                prompt = value[:, : length - ends]
                # The completion may attend to whatever the prompt's last token may
                last = prompt[:, -1:].expand(-1, completion.shape[1], *prompt.shape[2:])
                behind = (
                    completion if key == "input_ids" else last if key.endswith("_mask") else torch.zeros_like(last)
                )
                value = torch.cat([prompt, behind], dim=1)
            result[key] = value
        ignored = torch.full((1, length - ends), IGNORE_INDEX)
        return {**result, "labels": torch.cat([ignored, completion], dim=1)}

    @property
    def _eos_token(self) -> str:
        return self.processor.tokenizer.eos_token or ""

    def _completion_ids(self, completion: str) -> torch.Tensor:  # (1, C)
        tokenizer = self.processor.tokenizer
        ids = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
        if tokenizer.eos_token_id is not None:
            while ids and ids[-1] == tokenizer.eos_token_id:
                ids.pop()
            ids.append(tokenizer.eos_token_id)
        return torch.tensor([ids], dtype=torch.int64)

    def _stack(self, key: str, rows: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        values = [row.get(key) for row in rows]
        fill = {"input_ids": self.processor.tokenizer.pad_token_id, "labels": IGNORE_INDEX}.get(key, 0)
        given = next(value for value in values if value is not None)
        owner = next(row for row in rows if key in row)
        if _is_aligned(key, given, owner["input_ids"].shape[1]):
            # Zeros for a row without images, which has no such value
            filled = [
                value if value is not None else given.new_zeros(1, row["input_ids"].shape[1], *given.shape[2:])
                for value, row in zip(values, rows, strict=True)
            ]
        else:
            filled = [value for value in values if value is not None]
        shape = torch.tensor([value.shape[1:] for value in filled]).amax(0).tolist()
        return torch.cat([_pad_to(value, shape, fill) for value in filled])


def trl_collates(collator: Any, row: Mapping[str, Any], image_token_ids: Collection[int]) -> bool:
    """
    Whether TRL's collator, set to supervise completions, serves prompt-completion rows of a family.

    Args:
        collator ([`~trl.trainer.sft_trainer.DataCollatorForVisionLanguageModeling`]):
            TRL's collator.
        row (`Mapping[str, Any]`):
            A row with an image; it is not changed.
        image_token_ids (`Collection[int]`):
            Ids that stand for an image in the text.

    Returns:
        `bool`: whether it takes the row, everything aligned with the text is as long as the text, and a row without an
        image gets no image tokens when it shares a batch with this one.
    """
    try:
        batch = collator([copy_row(row)])
    except (KeyError, TypeError, ValueError):
        return False
    supervised = (batch["labels"][0] != IGNORE_INDEX).nonzero()
    if len(supervised) and any(_is_aligned(key, value, int(supervised[0])) for key, value in batch.items()):
        return False
    without = {**lift_images(row), "images": []}
    token = getattr(collator.processor, "image_token", None)
    if isinstance(without["prompt"], str) and token is not None:
        without["prompt"] = without["prompt"].replace(str(token), "")
    try:
        batch = collator([lift_images(row), copy_row(without)])
    except (KeyError, RuntimeError, TypeError, ValueError):
        return True  # rows with images are served
    return not torch.isin(batch["input_ids"][1], torch.tensor(list(image_token_ids))).any()


def _is_aligned(key: str, value: Any, length: int) -> bool:
    """Whether a value, of shape (1, length, ...), is aligned with the text."""
    return (
        isinstance(value, torch.Tensor)
        and value.ndim > 1
        and value.shape[:2] == (1, length)
        and (key.endswith(("_ids", "_mask")) or key == "labels")
    )


def _pad_to(value: torch.Tensor, shape: list[int], fill: int) -> torch.Tensor:
    """A value padded at the end of each of its dimensions but the first."""
    missing = [(0, size - have) for size, have in zip(shape, value.shape[1:], strict=True)]
    return torch.nn.functional.pad(value, [side for pair in reversed(missing) for side in pair], value=fill)

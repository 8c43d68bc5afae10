# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Stops at a loss that is not finite, before its gradients reach the weights, and names the term and the rows behind it.

Notable: only losses are checked. Gradients that overflow in float16 are normal: the gradient scaler skips their step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers.trainer_utils import has_length

from ..data.rows import copy_row
from ..random_state import preserve_random_state
from ..shorten import shorten


def non_finite_error(
    trainer: Any, inputs: Mapping[str, Any], values: Mapping[str, torch.Tensor], per_row: torch.Tensor | None
) -> ValueError:
    """
    The error for a micro-batch whose loss is not finite.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer in its training loop.
        inputs (`Mapping[str, Any]`):
            The micro-batch, with `input_ids` and `labels`.
        values (`Mapping[str, torch.Tensor]`):
            Name and value of each term of the loss.
        per_row (`torch.Tensor` of shape `(B,)` or longer, *optional*):
            Sum of all that each row contributes to the terms. Without it, all rows are named.

    Returns:
        `ValueError`: to be raised.
    """
    bad = {name: float(value) for name, value in values.items() if not torch.isfinite(value)}
    named = ", ".join(f"`{name}` is {value}" for name, value in bad.items())
    contents = _contents(inputs)
    places = list(range(len(contents)))
    if per_row is not None and not torch.isfinite(per_row).all():
        places = torch.nonzero(~torch.isfinite(per_row[: len(contents)])).flatten().tolist()
    rows = _names_of_rows(trainer, [contents[place] for place in places])
    advice = "Look at these rows."
    if len(rows) == len(contents):
        advice = "These are all rows of the batch: if they look fine, the weights are not finite any more."
    return ValueError(
        f"The loss of step {trainer.state.global_step + 1} is not finite: {named}. It comes from {'; '.join(rows)}. "
        f"{advice} Otherwise lower `learning_rate`, or train in bfloat16 instead of float16. No weight was changed by "
        "this step."
    )


def _contents(batch: Mapping[str, Any]) -> list[tuple[list[int], list[int]]]:
    """The real tokens of each row, and its supervised ones."""
    ids, labels = batch["input_ids"].cpu(), batch["labels"].cpu()
    mask = batch["attention_mask"].cpu().bool() if "attention_mask" in batch else torch.ones_like(ids).bool()
    return [
        (row[real].tolist(), label[label != -100].tolist()) for row, real, label in zip(ids, mask, labels, strict=True)
    ]


def _names_of_rows(trainer: Any, contents: list[tuple[list[int], list[int]]]) -> list[str]:
    """Row numbers where the data set can be searched, and each row's response."""
    missing, numbers = dict.fromkeys(map(repr, contents)), dict[str, int]()
    dataset, is_stream = trainer.rows_for_collator(), not has_length(trainer.train_dataset)
    if not is_stream:
        with preserve_random_state():
            for number in range(len(dataset)):
                [content, *_] = _contents(trainer.data_collator([copy_row(dataset[number])]))
                if repr(content) in missing and repr(content) not in numbers:
                    numbers[repr(content)] = trainer.skipped_rows.given(number)
                if len(numbers) == len(missing):
                    break
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    names = []
    for content in contents:
        is_found = repr(content) in numbers
        where = f"row {numbers[repr(content)]} of `train_dataset`" if is_found else "a row"
        names.append(f"{where} (response {shorten(tokenizer.decode(content[1]))})")
    return names

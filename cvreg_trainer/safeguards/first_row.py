# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Checks on one collated row before anything is trained: whether its images arrive, and whether the head is right."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..collators.batches import is_visual
from ..data.adapting import refuse_images_without_a_place
from ..data.row_checks import first_rows
from ..data.row_images import RowError
from ..data.rows import copy_row
from ..head import check_cross_view_head
from ..random_state import preserve_random_state


def collate_example(trainer: Any) -> dict[str, Any]:
    """
    The first row with a supervised token, collated; if none of the first rows has any, the last of them.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer with its training set and collator.
    """
    batch: dict[str, Any] = {}
    with preserve_random_state():
        for row in first_rows(trainer.rows_for_collator()):
            batch = dict(trainer.data_collator([copy_row(row)]))
            if "labels" in batch and (torch.as_tensor(batch["labels"]) != -100).any():
                break
    return batch


def check_images(trainer: Any, image_token_ids: list[int], explains_errors: bool) -> None:
    """
    Raise if the first row to train on has places for an image and no image reaches them, or the other way round.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer with its training set and collator.
        image_token_ids (`list[int]`):
            Ids that stand for an image in the text.
        explains_errors (`bool`):
            Whether the meaning of the collator's errors is known, because it is not the user's own.

    Raises:
        `ValueError`: if images and their places do not match, naming the row.
    """
    try:
        ids, batch = torch.tensor(image_token_ids), trainer.example_batch
    except (KeyError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        if not isinstance(error, RowError) and explains_errors:
            refuse_images_without_a_place(first_rows(trainer.train_dataset), trainer.processing_class, error)
        raise
    if "input_ids" not in batch or any(is_visual(key, value) for key, value in batch.items()):
        return
    if torch.isin(torch.as_tensor(batch["input_ids"]), ids).any():
        raise ValueError(
            "Row 0 of `train_dataset` has image tokens but no image could be read. Put its images into a column "
            '`images`, or into the content of its messages as {"type": "image", "image": ...}.'
        )


def check_head(trainer: Any, model: nn.Module) -> None:
    """
    Compare one row's loss through the cross-view head with the model's own.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer in its training loop.
        model (`torch.nn.Module`):
            Its model, wrapped as it trains.

    Raises:
        `ValueError`: if they differ; see [`check_cross_view_head`].
    """
    inputs: dict[str, Any] = {**trainer._prepare_inputs(dict(trainer.example_batch)), "use_cache": False}
    if trainer.aux_loss_enabled:
        inputs["output_router_logits"] = False
    if inputs["labels"].ne(-100).any():
        with preserve_random_state():
            mixed = trainer.accelerator.mixed_precision != "no"
            check_cross_view_head(model, inputs, mixed_precision=mixed)

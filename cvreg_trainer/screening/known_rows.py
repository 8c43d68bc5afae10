# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Checks that the rows that are trained on are those that were scored: a row is recognised by its content.

Notable: a row that is not recognised is never trained on. It is an error or, in a stream, left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.trainer_utils import has_length

from ..data.rows import row_digest
from .passes.collator import silence_rows
from .passes.scoring_pass import read_row_ids
from .passes.token_statistics import TokenStatistics


NUM_TRIED = 16
REPEAT_REMEDY = (
    "The content of a row changes from access to access, so flagged rows could not be recognised. Move random "
    "augmentation from the data set into the data collator, or set `screening='off'`."
)


def check_repeats(trainer: Any) -> None:
    """
    Read some rows twice: random augmentation in the data set would otherwise not show until the cut.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer with the training set.

    Raises:
        `ValueError`: if a row differs when it is read again, naming it.
    """
    dataset: Any = trainer.rows_for_collator()
    is_streamed = not has_length(dataset)
    if is_streamed:
        passes = [[(place, row_digest(row)) for place, row in enumerate(dataset.take(NUM_TRIED))] for _ in range(2)]
    else:
        # One pass after the other, not each row twice in succession: a data set may cache the row it read last
        places = np.unique(np.linspace(0, len(dataset) - 1, NUM_TRIED).astype(int)).tolist()
        passes = [[(place, row_digest(dataset[place])) for place in places] for _ in range(2)]
    for (place, first), (_, second) in zip(*passes, strict=True):
        if first != second:
            number = trainer.skipped_rows.given(place)
            raise ValueError(f"Row {number} of `train_dataset` differs when it is read again. {REPEAT_REMEDY}")


def check_resumed_rows(trainer: Any, rows: Any, known: np.ndarray) -> None:
    """
    Compare the rows of a resumed training with those that were scored before its checkpoint.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            Trainer in its training loop.
        rows:
            The rows to train on, map-style or streamed.
        known (`np.ndarray` of shape `(R,)`, int64):
            Names of the rows that were scored, ascending.

    Raises:
        `ValueError`: if there are new ones.
    """
    ids = read_row_ids(trainer, rows)
    num_new = int(_are_new(ids, known).sum())
    if num_new:
        raise ValueError(
            f"{num_new} of the {len(ids)} rows of `train_dataset` are new: the checkpoint's screening has never "
            "seen them. Resume with the data that the checkpoint was made with, or start the training anew."
        )


def leave_out_new_rows(batch: dict[str, Any], known: np.ndarray, is_streamed: bool) -> bool:
    """
    Exclude rows that were never scored from the loss of a batch, in place.

    Args:
        batch (`dict[str, Any]`):
            What [`DataCollatorForScreening`] made.
        known (`np.ndarray` of shape `(R,)`, int64):
            Names of the rows that were scored, ascending.
        is_streamed (`bool`):
            Whether the data are streamed, so that such rows are to be expected.

    Returns:
        `bool`: whether there were any.

    Raises:
        `ValueError`: if there are any and the data are not streamed.
    """
    ids = batch["row_id"]
    is_new = torch.from_numpy(_are_new(ids.cpu().numpy(), known)).to(ids.device)
    if not is_new.any():
        return False
    if not is_streamed:
        raise ValueError(
            f"{int(is_new.sum())} of the {len(ids)} rows of a batch are not among those that the base model was "
            f"shown. {REPEAT_REMEDY}"
        )
    silence_rows(batch, is_new)
    return True


def _are_new(row_ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    places = np.searchsorted(known, row_ids).clip(max=len(known) - 1)
    is_new: np.ndarray = known[places] != row_ids
    return is_new


def check_same_rows(base: TokenStatistics, warm: TokenStatistics) -> None:
    """
    Compare the rows of two looks.

    Args:
        base, warm ([`TokenStatistics`]):
            The base model's look and that of the warmed-up model.

    Raises:
        `ValueError`: if they are not the same, in the same order.
    """
    num_changed = int((base.row_ids != warm.row_ids).sum()) if len(base) == len(warm) else len(base)
    if num_changed:
        raise ValueError(
            f"{num_changed} of {len(base)} rows that the base model was shown are not in the training set any more. "
            f"{REPEAT_REMEDY}"
        )

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Chooses the collator of a trainer whose user gave none: TRL's, or one of ours where TRL's cannot serve the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.row_checks import first_rows
from ..data.rows import find_images
from ..head import decoder_start_token_id, is_encoder_decoder
from ..random_state import preserve_random_state
from .encoder_decoder import DataCollatorForEncoderDecoder
from .prompt_completion import DataCollatorForPromptCompletion, trl_collates


def choose_collator(trainer: Any, config: Any, image_token_ids: list[int]) -> Any:
    """
    The collator for a trainer's rows with images.

    Args:
        trainer ([`~trl.SFTTrainer`]):
            Trainer with the collator that TRL chose.
        config ([`~transformers.PreTrainedConfig`]):
            Configuration of its base model.
        image_token_ids (`list[int]`):
            Ids that stand for an image in the text.

    Returns:
        TRL's collator, [`DataCollatorForEncoderDecoder`] or [`DataCollatorForPromptCompletion`].
    """
    max_length = trainer.args.max_length if isinstance(trainer.args.max_length, int) else None
    if is_encoder_decoder(config):
        if not trainer._is_vision_dataset:
            return trainer.data_collator
        return DataCollatorForEncoderDecoder(
            trainer.processing_class, decoder_start_token_id=decoder_start_token_id(config), max_length=max_length
        )
    if _needs_own_collator(trainer, image_token_ids):
        return DataCollatorForPromptCompletion(trainer.processing_class, max_length)
    return trainer.data_collator


def _needs_own_collator(trainer: Any, image_token_ids: list[int]) -> bool:
    """Whether TRL's collator cannot serve these prompt-completion rows."""
    rows = [row for row in first_rows(trainer.train_dataset) if isinstance(row, Mapping) and find_images(row)]
    if not rows or not {"prompt", "completion"} <= rows[0].keys() or trainer.args.completion_only_loss is False:
        return False
    with preserve_random_state():
        return not trl_collates(trainer.data_collator, rows[0], image_token_ids)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The learning-rate schedule from the cut on: it restarts, over the steps that are left.

What follows the cut is a training of its own, from the weights of step 0 and with a fresh optimiser. In the middle of
the old schedule it would begin without the schedule's warm-up, at a learning rate that has already decayed.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

from torch.optim.lr_scheduler import LRScheduler


logger = logging.getLogger(__name__)


def start_schedule_over(trainer: Any, num_steps: int) -> None:
    """
    Replace the trainer's schedule by one over `num_steps` optimiser steps, at its first step.

    A scheduler that was passed to the trainer, or that DeepSpeed made from its own configuration, continues unchanged:
    only its author knows what it should be over fewer steps.
    """
    old = trainer.lr_scheduler
    wrapped = getattr(old, "scheduler", None)
    if trainer.is_deepspeed_enabled and isinstance(wrapped, LRScheduler):
        # Made by transformers for the optimiser in DeepSpeed's configuration; the engine steps it
        new = _make(trainer, num_steps, wrapped.optimizer)
        trainer.model_wrapped.lr_scheduler = old.scheduler = new
        trainer.lr_scheduler = old
    elif trainer._created_lr_scheduler:
        trainer.callback_handler.lr_scheduler = _make(trainer, num_steps, trainer.optimizer)
    else:
        logger.info("The trainer did not create its learning rate schedule, so screening leaves it as it is.")


def resume_schedule(trainer: Any, num_steps: int) -> None:
    """Resume a restarted schedule at the position stored in the checkpoint; see [`start_schedule_over`]."""
    position = trainer.lr_scheduler.state_dict()
    groups = trainer.optimizer.param_groups
    rates = [group["lr"] for group in groups]
    start_schedule_over(trainer, num_steps)
    trainer.lr_scheduler.load_state_dict(position)
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate


def _make(trainer: Any, num_steps: int, optimizer: Any) -> Any:
    for group in optimizer.param_groups:
        group["lr"] = deepcopy(group.get("initial_lr", group["lr"]))
    trainer.lr_scheduler = None
    return trainer.create_scheduler(num_steps, optimizer)

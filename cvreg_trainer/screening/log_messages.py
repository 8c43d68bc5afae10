# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a screening logs: before it, that there are too few rows or steps; after it, how many rows were flagged."""

from __future__ import annotations

import logging
import math
from typing import Any

from .verdict.rule import RULE
from .verdict.screen import Screen


logger = logging.getLogger(__name__)


def warn_of_too_little(args: Any, num_rows: int, warmup_steps: int) -> None:
    """
    Warn of too few rows, or too few steps.

    Args:
        args ([`CrossViewDefenseConfig`]):
            Configuration of the training.
        num_rows, warmup_steps (`int`):
            Rows of the training set, and optimiser steps of the warm-up.
    """
    if num_rows < RULE.enough_rows:
        logger.warning(
            "Screening needs %d rows to tell a cause from chance, and `train_dataset` has %d: it will find nothing. "
            "Set `screening='off'` to save its three passes.",
            RULE.enough_rows,
            num_rows,
        )
    elif args.screening_epochs is None and warmup_steps < RULE.warmup_steps:
        logger.warning(
            "The warm-up of the screening is half of this training, %d optimiser steps. With fewer than %d, honest "
            "details that the model does not know yet may be taken for triggers. Train for %d steps or more, or set "
            "`screening='report'` and look at the audit first.",
            warmup_steps,
            RULE.warmup_steps,
            math.ceil(RULE.warmup_steps / RULE.longest_warmup),
        )


def log_verdict(args: Any, screen: Screen) -> None:
    """Log how many rows were flagged; warn if there are many, or more than `screening_cap` allows."""
    num_rows, num_flagged, share = len(screen.is_flagged), int(screen.is_flagged.sum()), screen.is_flagged.mean()
    done = "left out" if args.drops_rows else "flagged"
    logger.info("Screening %s %d of %d rows.", done, num_flagged, num_rows)
    if share > RULE.many_flagged:
        logger.warning(
            "Screening %s %d of %d rows (%.1f %%). It can flag honest rows: look at the audit before you trust the "
            "model.",
            done,
            num_flagged,
            num_rows,
            100 * share,
        )
    if screen.is_capped:
        logger.warning(
            "More rows are suspicious than `screening_cap=%s` lets go; the most suspicious were flagged. Look at the "
            "audit before you trust the model: either the data are new to it in a way that screening cannot tell from "
            "poison, or a large part is poisoned.",
            args.screening_cap,
        )

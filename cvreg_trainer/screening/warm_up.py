# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How long the warm-up of the screening is."""

from __future__ import annotations

import math
from typing import Any

from transformers.trainer_utils import has_length

from .verdict.rule import RULE


def warmup_length(args: Any, max_steps: int, loader: Any) -> int:
    """
    Optimiser steps of the warm-up, at least 1.

    Args:
        args ([`CrossViewDefenseConfig`]):
            Configuration; without `screening_epochs` the rule gives the length.
        max_steps (`int`):
            Optimiser steps of the whole training.
        loader (`torch.utils.data.DataLoader`):
            The training's loader; its length is needed only if `screening_epochs` is given.

    Raises:
        `ValueError`: if `screening_epochs` is given and the loader has no length, or nothing is left for the rest of
            the training.
    """
    steps = max(RULE.warmup_share * max_steps, min(RULE.warmup_steps, RULE.longest_warmup * max_steps))
    if args.screening_epochs is not None:
        if not has_length(loader):
            raise ValueError(
                f"`screening_epochs={args.screening_epochs}` counts epochs, and streamed data have none. Set "
                "`screening_epochs=None`: the warm-up is then a share of `max_steps`."
            )
        steps = args.screening_epochs * math.ceil(len(loader) / args.gradient_accumulation_steps)
    if max_steps <= math.ceil(steps):
        lower = "" if args.screening_epochs is None else f", lower `screening_epochs` ({args.screening_epochs})"
        raise ValueError(
            f"The warm-up of the screening takes {max(1, math.ceil(steps))} optimiser steps, the training has "
            f"{max_steps}: nothing is left for the screened rows. Train for longer{lower}, or set `screening='off'`."
        )
    return max(1, math.ceil(steps))

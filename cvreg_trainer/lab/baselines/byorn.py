# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Replace the responses that the pretrained model finds least likely by the model's own: BYORn.

Source: Sabolic et al., "BYORn: Bootstrap Your Own Responses to Defend Large Vision-Language Models Against Backdoor
Attacks" (arXiv 2606.02947, ICML 2026). Before the training, the 40 % of the responses with the lowest likelihood under
the pretrained model are flagged ([`response_scores`]). Where a batch has flagged rows, they are learnt with responses
that a moving average of the model gives to the same image and question at that moment, so that no trigger is ever seen
beside the attacker's words.

Departures: the paper was read in others' summaries, which give neither the average's decay, for which 0.99 is taken
here, nor how responses are drawn; they are greedy here. The source parts flagged rows and others into batches of their
own, which saves time and changes nothing else; here batches are mixed. A batch may be made one step before its use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from transformers import TrainerCallback

from .scoring import as_prompt_completion


FLAG = "is_flagged"


class MovingAverage(TrainerCallback):
    """
    A copy of a model in training that follows it slowly, as its `model`.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            What `model` is before the training begins, when trainers may look at a first batch already.
        decay (`float`, *optional*, defaults to `0.99`):
            What each step keeps of the copy's weights, from 0 to below 1.

    Raises:
        `ValueError`: if `decay` is out of range.
    """

    def __init__(self, model: Any, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay={decay}` must be at least 0 and below 1, such as 0.99.")
        self.model, self.decay = model, decay

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.model = deepcopy(kwargs["model"]).eval().requires_grad_(False)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            pairs = zip(self.model.parameters(), kwargs["model"].parameters(), strict=True)
            for own, new in pairs:
                if new.requires_grad:
                    own.lerp_(new.to(own.dtype), 1 - self.decay)


class DataCollatorForBootstrap:
    """
    Data collator that gives the flagged rows of a batch other responses before another collator sees them.

    It is to run where the model is: with `dataloader_num_workers=0`, and with `remove_unused_columns=False` so that it
    sees the flags.

    Args:
        inner (`Callable[[list], Mapping]`):
            Any collator of rows with `prompt` and `completion`.
        answer (`Callable[[list[dict]], list[str]]`):
            Responses to some rows.
    """

    def __init__(
        self,
        inner: Callable[[list[Any]], Mapping[str, Any]],
        answer: Callable[[list[dict[str, Any]]], Sequence[str]],
    ) -> None:
        self.inner, self.answer = inner, answer

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """
        Collate rows, of which those with a true `is_flagged` get new responses.

        Args:
            examples (`Sequence[Mapping]`):
                The rows, which are not changed.
        """
        rows = [as_prompt_completion(example) for example in examples]
        flagged = [row for row in rows if row.pop(FLAG)]
        for row, text in zip(flagged, self.answer(flagged) if flagged else [], strict=True):
            is_text = isinstance(row["completion"], str)
            row["completion"] = text if is_text else [{"role": "assistant", "content": text}]
        return self.inner(rows)

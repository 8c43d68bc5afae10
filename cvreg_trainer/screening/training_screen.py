# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The screening of one training, from its first step to its last checkpoint.

    step 0              all rows are scored by the base model: the model, with its adapter if any, before it learns
    warm-up             training on strong views of all rows: what the images show is learnt, but hardly any trigger
    end of the warm-up  the cut: all rows are scored again, on strong views of their own and of others' images, and the
                        suspicious ones are flagged
    rest of the run     the same training continues from the weights of step 0, with the learning-rate schedule
                        restarted, on the images as they are and without the flagged rows

Notable: no step is repeated, and the only copy of the model is one of its trainable weights, kept until the cut. All
processes take part in the scoring passes, the looks at the rows, but only the main process keeps the results and makes
the verdict.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import has_length

from .._version import __version__
from ..random_state import preserve_random_state
from .audit.audit import Audit
from .audit.decisions import read_decisions
from .audit.make_audit import make_audit, pieces_of_rows, response_of
from .known_rows import check_repeats, check_resumed_rows, leave_out_new_rows
from .log_messages import log_verdict, warn_of_too_little
from .looks import Looks
from .main_process import on_main_process
from .passes.collator import DataCollatorForScreening, finds_images_in_rows, silence_rows
from .schedule import resume_schedule, start_schedule_over
from .start_weights import StartWeights
from .verdict.rule import RULE
from .verdict.screen import Screen, screen_rows
from .verdict.words import locate_words
from .warm_up import warmup_length


logger = logging.getLogger(__name__)


class TrainingScreen(TrainerCallback):
    """
    Screens the rows of a trainer's training set while it trains; see the head of this file.

    Args:
        trainer ([`CrossViewDefenseTrainer`]):
            The trainer, with its model, data set and collator.

    Raises:
        `OSError` or `ValueError`: if the file of decisions cannot be read; see [`read_decisions`].
    """

    def __init__(self, trainer: Any) -> None:
        # A weak reference: the trainer holds this, and a cycle would keep it alive until garbage is collected
        self.trainer: Any = weakref.proxy(trainer)
        self.looks: Looks | None = None
        self.start: StartWeights | None = None  # until the cut
        self.screen: Screen | None = None
        self._audit: Audit | None = None
        self.collator: DataCollatorForScreening | None = None
        self.reads_rows = True
        path = trainer.args.screening_decisions
        self.decisions = None if path is None else read_decisions(path)
        self._is_resumed = False
        self._has_warned = False

    def check(self, rows: list[Any]) -> None:
        """
        Try what screening will have to do before anything is trained.

        Args:
            rows (`list`):
                Some rows, as the collator gets them.

        Raises:
            `ValueError`: if no strong view of a row's image can be made, or a row differs when it is read again.
        """
        check_repeats(self.trainer)
        self.reads_rows = finds_images_in_rows(self.trainer.data_collator, rows, self.trainer.args.seed)

    def wrap(self, inner: Callable[[list[Any]], Any]) -> DataCollatorForScreening:
        """The collator that leaves out what is flagged, now or later."""
        capacity, seed = self._capacity(), self.trainer.args.seed
        self.collator = DataCollatorForScreening(inner, capacity, seed, self.screen is None, self.reads_rows)
        self.collator.flag(self._flagged_ids())
        return self.collator

    @property
    def warmup_steps(self) -> int:
        """Optimiser steps of the warm-up; see [`warmup_length`]."""
        loader = self.trainer.callback_handler.train_dataloader
        return warmup_length(self.trainer.args, self.trainer.state.max_steps, loader)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the rows with the base model; in a resumed training, check that they are the ones that were scored."""
        # Raises if the training is too short, before the pass over the data
        warmup_steps = self.warmup_steps if self.screen is None else 0
        if self.looks is None and state.global_step > 0:
            raise ValueError(
                f"`screening={self.trainer.args.screening!r}` needs to know how the base model sees the data, but the "
                f"checkpoint of step {state.global_step} was written without screening. Start the training anew, or "
                "set `screening='off'`."
            )
        if self.screen is None and self.start is None:
            self.start = StartWeights(self.trainer)
        if self.looks is None:
            self.looks = Looks.first(self.trainer, self._rows(), self.reads_rows)
        if self.screen is None and self.trainer.accelerator.is_main_process:
            warn_of_too_little(args, len(self.looks), self.warmup_steps)
        if self._is_resumed:
            self._is_resumed = False
            check_resumed_rows(self.trainer, self._rows(), self.looks.sorted_ids)
            if self.screen is not None:
                resume_schedule(self.trainer, state.max_steps - self._cut_step)
        if self.screen is None and state.global_step >= warmup_steps:
            self.run()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut at the end of the warm-up."""
        if self.screen is None and state.global_step >= self.warmup_steps:
            self.run()

    def exchange(self, batch: dict[str, Any]) -> dict[str, Any]:
        """
        The batch to train on in place of a given one: the batch itself or, if its loader made it before the cut, its
        rows collated anew. How far loaders prefetch, which depends on workers and micro-batches, then has no influence
        on the training.

        Args:
            batch (`dict[str, Any]`):
                What [`DataCollatorForScreening`] made.

        Raises:
            `ValueError`: if a row was never scored.
        """
        assert self.collator is not None and self.looks is not None
        if leave_out_new_rows(batch, self.looks.sorted_ids, self._is_streamed) and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The stream gives rows that the first look at it did not meet; they are left out of the training."
            )
        if self.screen is None or not batch["is_early"].any():
            return batch
        if self._is_streamed:
            silence_rows(batch, self.collator.is_flagged(batch["row_id"]))
            return batch
        return self._collate_again(batch["row_id"])

    def _collate_again(self, row_ids: torch.Tensor) -> dict[str, Any]:
        assert self.collator is not None and self.looks is not None
        dataset = self.trainer.rows_for_collator()
        places = {row_id: place for place, row_id in enumerate(self.looks.row_ids.tolist())}
        with preserve_random_state():
            batch = self.collator([dataset[places[row_id]] for row_id in row_ids.tolist()])
        return send_to_device(batch, row_ids.device)

    def run(self) -> Screen:
        """Score all rows with the model as it is, flag the suspicious ones, and return to the weights of step 0."""
        assert self.looks is not None and self.start is not None
        self.looks = self.looks.again(self.trainer, self._rows(), self.reads_rows)
        screen = self._cut()
        self.start.put_back(self.trainer)
        self.start = None
        state = self.trainer.state
        start_schedule_over(self.trainer, state.max_steps - state.global_step)
        self._log(screened_rows=len(self.looks), flagged_rows=int(screen.is_flagged.sum()))
        return screen

    @property
    def _cut_step(self) -> int:
        # Resuming with a different number of steps changes `warmup_steps`, but not where the cut was made
        logs = self.trainer.state.log_history
        return next((log["step"] for log in reversed(logs) if "screened_rows" in log), self.warmup_steps)

    def _log(self, **numbers: float) -> None:
        control = self.trainer.control
        should_log = control.should_log
        # Bypasses SFTTrainer's own method, which would flush the step's metrics too
        Trainer.log(self.trainer, numbers)
        control.should_log = should_log  # the step's own log is still to come

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the trainer's processor."""
        processor = self.trainer.processing_class
        return getattr(processor, "tokenizer", processor)

    def _cut(self) -> Screen:
        accelerator = self.trainer.accelerator
        screen = on_main_process(accelerator, self._decide)
        self.screen, self._audit = screen, None
        if self.collator is not None:
            self.collator.flag(self._flagged_ids())
            self.collator.shows_views = False
        if accelerator.is_main_process:
            log_verdict(self.trainer.args, screen)
        return screen

    def _decide(self) -> Screen:
        """The rule's verdict, overridden by a person's decisions where there are any."""
        assert self.looks is not None
        self.looks, args = self.looks.shared(), self.trainer.args
        allowed = () if self.decisions is None else self.decisions.allowed_words
        cap, fdr = args.screening_cap, args.screening_fdr
        looks = self.looks.parted(args.screening_rows, args.seed)
        screen = screen_rows(*looks.all_three, self.tokenizer, args.seed, cap, fdr, allowed, looks.rest)
        if self.decisions is not None:
            decisions, tokens = self.decisions.of_rows(self.trainer.skipped_rows), self.looks.tokens
            decisions.check([response_of(pieces) for pieces in pieces_of_rows(tokens, self.tokenizer)])
            screen = decisions.apply(screen, locate_words(tokens, self.tokenizer))
        return screen

    def _flagged_ids(self) -> set[int]:
        if self.screen is None or self.looks is None or not self.trainer.args.drops_rows:
            return set()
        return set(self.looks.row_ids[self.screen.is_flagged].tolist())

    def audit(self) -> Audit:
        """
        All rows ranked by suspicion, with reasons; made once per cut. On processes other than the main one, the rows
        have no response, tokens or losses.

        Raises:
            `ValueError`: if the rows have not been screened yet.
        """
        if self.screen is None or self.looks is None:
            raise ValueError(
                "There is nothing to audit yet: the rows are screened in `train()`, at the end of the warm-up."
            )
        if self._audit is not None:
            return self._audit
        args = self.trainer.args
        settings = {
            "cvreg_trainer": __version__,
            "seed": args.seed,
            "screening": args.screening,
            "warmup_steps": self.warmup_steps,
            "screening_rows": args.screening_rows,
            "rows_looked_at": len(self.looks.base),
            "screening_cap": args.screening_cap,
            "screening_fdr": args.screening_fdr,
            "screening_decisions": args.screening_decisions,
            "rule": RULE.to_dict(),
        }
        skipped = self.trainer.skipped_rows
        if skipped.reasons:
            settings["skipped_rows"] = len(skipped.reasons)
        losses, tokens = self.looks.losses, self.looks.tokens
        audit = make_audit(self.screen, losses, tokens, self.tokenizer, self.trainer.train_dataset, settings)
        self._audit = audit.renumbered(skipped.given) if skipped.reasons else audit
        return self._audit

    def _capacity(self) -> int:
        return self._rows_ahead() if self._is_streamed else len(self.trainer.train_dataset)

    @property
    def _is_streamed(self) -> bool:
        return not has_length(self.trainer.train_dataset)

    def _rows_ahead(self) -> int:
        """Rows that a whole training takes from a stream."""
        args = self.trainer.args
        return args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size

    def _rows(self) -> Any:
        dataset = self.trainer.train_dataset
        return dataset.take(self._rows_ahead()) if self._is_streamed else dataset

    def save(self, folder: str | Path) -> None:
        """Write what a resumed training needs to go on; all processes take part."""
        if self.start is not None:
            self.start.save(self.trainer, folder)
        if self.looks is not None and self.trainer.accelerator.is_main_process:
            self.looks.save(folder)

    def load(self, folder: str | Path) -> None:
        """
        Read what [`TrainingScreen.save`] wrote, if there is anything; all processes take part.

        Raises:
            `ValueError`: if another version wrote it, whose screening read other features of the rows.
        """
        looks = Looks.load(self.trainer.accelerator, folder)
        if looks is None:
            return
        self.looks, self._is_resumed = looks, True
        if self.looks.is_done:
            self._cut()
        else:
            self.start = StartWeights.load(self.trainer, folder)

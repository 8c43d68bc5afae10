# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Ends a training at the cut, for those who want its audit and not its model."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from .training_screen import TrainingScreen


class StopAfterScreening(TrainerCallback):
    """
    Stops a training as soon as its screening has made the cut. Add it after the screening, which is a callback itself.

    Args:
        screen ([`TrainingScreen`]):
            The trainer's screening.
    """

    def __init__(self, screen: TrainingScreen) -> None:
        self.screen = screen
        self.bar: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is None:
            is_quiet = args.disable_tqdm or not state.is_world_process_zero
            self.bar = tqdm(total=self.screen.warmup_steps, desc="Warm-up", unit="step", leave=False, disable=is_quiet)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update()
        if state.global_step + 1 >= self.screen.warmup_steps:
            self.bar.close()  # before the scoring passes show their own bars

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.screen.screen is not None:
            control.should_training_stop = True

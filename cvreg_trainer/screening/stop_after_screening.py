# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Ends a training at the cut, for those who want its audit and not its model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from .training_screen import TrainingScreen


class StopAfterScreening(TrainerCallback):
    """
    Stops a training as soon as its screening has made the cut. Add it after the screening, which is a callback itself.

    Args:
        screen ([`TrainingScreen`]):
            The trainer's screening.
        report (`Callable[[str], object]`, *optional*):
            Told in words what is being done, before each step and before the scoring.
    """

    def __init__(self, screen: TrainingScreen, report: Callable[[str], object] = lambda text: None) -> None:
        self.screen = screen
        self.report = report

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.report(f"Warm-up, step {state.global_step + 1:,} of {self.screen.warmup_steps:,}")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 >= self.screen.warmup_steps:
            self.report("Scoring all rows")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.screen.screen is not None:
            control.should_training_stop = True

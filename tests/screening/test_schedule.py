# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The learning rate's schedule around the cut; under FSDP2 and DeepSpeed in test_distributed.py."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from screening_checks import CUT, train, weights_of
from screening_run import SETTINGS, make_trainer
from transformers import TrainerCallback


pytestmark = [pytest.mark.lowest, pytest.mark.usefixtures("flags_sentence")]
STEPS = 2 * CUT
RATE = SETTINGS["learning_rate"]


class Rates(TrainerCallback):
    """The learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates += [group["lr"] for group in kwargs["optimizer"].param_groups[:1]]


def rates_of(folder: Path, resume: str | None = None, **settings: Any) -> list[float]:
    trainer, rates = make_trainer(folder, **settings), Rates()
    trainer.add_callback(rates)
    trainer.train(resume_from_checkpoint=resume)
    return rates.rates


def linear(step: int, num_steps: int, warmup: int = 0) -> float:
    if step < warmup:
        return step / warmup
    return (num_steps - step) / (num_steps - warmup)


def cosine(step: int, num_steps: int) -> float:
    return (1 + math.cos(math.pi * step / num_steps)) / 2


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"lr_scheduler_type": "cosine"}, cosine),
        # A share is a share of the steps that are left
        ({"lr_scheduler_type": "linear", "warmup_steps": 0.5}, lambda step, n: linear(step, n, n // 2)),
        ({"lr_scheduler_type": "linear", "warmup_steps": 2}, lambda step, n: linear(step, n, 2)),
        ({"lr_scheduler_type": "constant"}, lambda step, n: 1.0),
    ],
)
def test_it_starts_over_at_the_cut(
    tmp_path: Path, settings: dict[str, Any], expected: Callable[[int, int], float]
) -> None:
    before = [RATE * expected(step, STEPS) for step in range(CUT)]
    after = [RATE * expected(step, STEPS - CUT) for step in range(STEPS - CUT)]
    assert rates_of(tmp_path, **settings) == pytest.approx(before + after)


def test_a_screening_that_has_ended_leaves_the_next_training_its_schedule(tmp_path: Path) -> None:
    trainer, rates = make_trainer(tmp_path, lr_scheduler_type="cosine"), Rates()
    trainer.train()
    trainer.add_callback(rates)
    trainer.train()
    assert rates.rates == pytest.approx([RATE * cosine(step, STEPS) for step in range(STEPS)])


@pytest.mark.parametrize("step", [CUT - 1, CUT, CUT + 1, STEPS - 1])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, step: int) -> None:
    settings: dict[str, Any] = {"lr_scheduler_type": "cosine", "warmup_steps": 0.3}
    expected, _ = train(tmp_path / "whole", **settings, save_strategy="steps", save_steps=1, save_total_limit=None)
    resumed, _ = train(tmp_path, resume=f"{tmp_path}/whole/checkpoint-{step}", **settings)
    weights = weights_of(resumed)
    assert all(torch.equal(weights[name], weight) for name, weight in weights_of(expected).items())
    assert set(resumed.lr_scheduler.get_last_lr() + expected.lr_scheduler.get_last_lr()) == {0.0}


def test_a_training_that_is_made_longer_has_the_schedule_of_its_new_length(tmp_path: Path) -> None:
    """As without screening, where the schedule over all steps is gone on with."""
    # Without a number of epochs the warm-up is half of so short a training: of the longer one, it would end later
    settings = {"lr_scheduler_type": "linear", "screening_epochs": None}
    rates_of(tmp_path, **settings, max_steps=STEPS, save_strategy="steps", save_steps=CUT + 2)
    rates = rates_of(tmp_path / "longer", f"{tmp_path}/checkpoint-{CUT + 2}", **settings, max_steps=2 * STEPS)
    num_steps = 2 * STEPS - CUT
    # The first step is made at the rate that the checkpoint's optimiser has, with screening or without
    assert rates[1:] == pytest.approx([RATE * linear(step, num_steps) for step in range(3, num_steps)])


def test_a_scheduler_of_the_users_own_goes_on(tmp_path: Path) -> None:
    trainer, rates = make_trainer(tmp_path), Rates()
    trainer.add_callback(rates)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=RATE)
    trainer.lr_scheduler = torch.optim.lr_scheduler.LinearLR(trainer.optimizer, 1.0, 0.0, STEPS)
    trainer.train()
    assert rates.rates == pytest.approx([RATE * linear(step, STEPS) for step in range(STEPS)])

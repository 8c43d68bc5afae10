# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Trainings with screening that record what they trained on, and what must hold of each."""

from pathlib import Path
from typing import Any

import torch
from screening_run import NUM_ROWS, PLANTED, SENTENCE, flagged_rows, make_trainer

from cvreg_trainer import CrossViewDefenseTrainer


CUT = 6  # optimiser steps of the warm-up


class Taken(list):
    """What each training batch held, as (step, row, whether any of its tokens is supervised, the row's pixels)."""

    def __init__(self, trainer: CrossViewDefenseTrainer) -> None:
        super().__init__()
        self.trainer = trainer
        inner = trainer.compute_loss

        def compute_loss(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if trainer.model.training:
                pixels = inputs.get("pixel_values", inputs["labels"])
                supervised = inputs["labels"].ne(-100).any(1).tolist()
                step = trainer.state.global_step
                for row_id, is_supervised, image in zip(inputs["row_id"].tolist(), supervised, pixels, strict=True):
                    self.append((step, row_id, is_supervised, image.clone()))
            return inner(model, inputs, *args, **kwargs)

        trainer.compute_loss = compute_loss

    def rows(self, steps: range) -> list[int]:
        """Positions of the supervised rows of some steps, sorted."""
        places = {row_id: row for row, row_id in enumerate(self.trainer._screen.looks.row_ids.tolist())}
        return sorted(places[row_id] for step, row_id, supervised, _ in self if supervised and step in steps)


def train(
    folder: Path, *args: Any, resume: str | None = None, **settings: Any
) -> tuple[CrossViewDefenseTrainer, Taken]:
    trainer = make_trainer(folder, *args, **settings)
    taken = Taken(trainer)
    trainer.train(resume_from_checkpoint=resume)
    # Otherwise the trainer holds itself, and its persistent workers take 5 s each to end whenever it is collected
    del trainer.compute_loss
    return trainer, taken


def weights_of(trainer: CrossViewDefenseTrainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def check_parts(trainer: CrossViewDefenseTrainer, taken: Taken) -> None:
    """Who takes part when: all rows once in the epoch before the cut, all but the planted ones in the one after it."""
    assert flagged_rows(trainer) == list(PLANTED)
    assert taken.rows(range(CUT)) == list(range(NUM_ROWS))
    assert taken.rows(range(CUT, 99)) == [row for row in range(NUM_ROWS) if row not in PLANTED]
    audit = trainer.audit()
    assert {row.row for row in audit.ranking[: len(PLANTED)]} == set(PLANTED)
    assert all(audit.rows[row].response == SENTENCE and audit.rows[row].reason for row in PLANTED)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A training that is killed anywhere, and gone on with from its last whole checkpoint, ends with the same weights."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from screening_run import make_trainer, planted_rows
from transformers import Trainer
from transformers.trainer_callback import TrainerState

from cvreg_trainer import CrossViewDefenseTrainer
from cvreg_trainer.screening import checkpoint as screening_checkpoint
from cvreg_trainer.screening.passes.collator import DataCollatorForScreening
from cvreg_trainer.screening.passes.scoring_pass import SCORING_EPOCH
from cvreg_trainer.screening.training_screen import TrainingScreen


pytestmark = pytest.mark.slow
# 240 rows: enough for all three passes, of five batches each; ten steps an epoch, the cut after the fourth
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 24,
    "per_device_eval_batch_size": 48,
    "screening_epochs": 0.4,
    "max_steps": 12,
    "lr_scheduler_type": "cosine",
    "save_strategy": "steps",
    "save_steps": 1,
    "lambda_patch": 0.01,
}
KILL = signal.SIGKILL


def in_a_process(action: Callable[[], None]) -> int:
    """Run something in a process of its own; what it ended with: 0, 1 after an error, or minus a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def train(folder: Path, resume: bool, prepare: Callable[[Any], None] = lambda trainer: None) -> None:
    trainer = make_trainer(folder, dataset=planted_rows(240, (3, 17, 22, 41, 99, 130)), **SETTINGS)
    prepare(trainer)
    trainer.train(resume_from_checkpoint=resume or None)
    save_file({name: p.detach() for name, p in trainer.model.named_parameters()}, folder / "weights.safetensors")
    trainer.audit().to_parquet(folder / "audit.parquet")


def die(*args: Any) -> None:
    os.kill(os.getpid(), KILL)


def in_scoring_batch(number: int) -> Callable[[Any], None]:
    def prepare(trainer: Any) -> None:
        inner, count = DataCollatorForScreening.__call__, [0]

        def collate(self: DataCollatorForScreening, rows: Any) -> Any:
            if self.views.epoch == SCORING_EPOCH:
                count[0] += 1
                if count[0] == number:
                    die()
            return inner(self, rows)

        DataCollatorForScreening.__call__ = collate

    return prepare


def in_step(step: int) -> Callable[[Any], None]:
    def prepare(trainer: Any) -> None:
        inner = CrossViewDefenseTrainer.compute_loss

        def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
            loss = inner(self, *args, **kwargs)
            return die() if self.state.global_step == step else loss

        CrossViewDefenseTrainer.compute_loss = compute_loss

    return prepare


def before(owner: Any, name: str, step: int) -> Callable[[Any], None]:
    def prepare(trainer: Any) -> None:
        inner = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return die() if trainer.state.global_step == step else inner(*args, **kwargs)

        setattr(owner, name, call)

    return prepare


def while_writing_the_state(trainer: Any) -> None:
    inner = TrainerState.save_to_json

    def save_to_json(self: TrainerState, path: str) -> None:
        inner(self, path)
        if self.global_step == 6:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    TrainerState.save_to_json = save_to_json


def while_writing_the_weights(trainer: Any) -> None:
    inner = Trainer._save

    def save(self: Any, output_dir: str, *args: Any, **kwargs: Any) -> None:
        inner(self, output_dir, *args, **kwargs)
        if self.state.global_step == 3:
            path = Path(output_dir) / "model.safetensors"
            os.truncate(path, path.stat().st_size // 2)
            die()

    Trainer._save = save


# Where it is killed, and the step of the last whole checkpoint
POINTS: dict[str, tuple[Callable[[Any], None], int]] = {
    "in the first pass": (in_scoring_batch(3), 0),
    "in the warm-up": (in_step(2), 2),
    "in the second pass": (in_scoring_batch(8), 3),
    "between the passes": (in_scoring_batch(11), 3),
    "in the third pass": (in_scoring_batch(14), 3),
    "at the cut": (before(TrainingScreen, "_cut", 4), 3),
    "after the cut": (in_step(7), 7),
    "before the screening's state is saved": (before(screening_checkpoint, "save_file", 5), 4),
    "while the weights are saved": (while_writing_the_weights, 2),
    "before the optimiser is saved": (before(Trainer, "_save_optimizer_and_scheduler", 8), 7),
    "while the trainer's state is saved": (while_writing_the_state, 5),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert in_a_process(lambda: train(folder, resume=False)) == 0
    return folder


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_training_is_gone_on_with(point: str, tmp_path: Path, uninterrupted: Path) -> None:
    prepare, step = POINTS[point]
    assert in_a_process(lambda: train(tmp_path, resume=False, prepare=prepare)) == -KILL
    assert not (tmp_path / "weights.safetensors").exists()

    def note_step(trainer: Any) -> None:
        inner = trainer._load_optimizer_and_scheduler
        trainer._load_optimizer_and_scheduler = lambda folder: (
            (tmp_path / "resumed").write_text(str(folder)),
            inner(folder),
        )

    assert in_a_process(lambda: train(tmp_path, resume=step > 0, prepare=note_step)) == 0
    if step:
        assert (tmp_path / "resumed").read_text().endswith(f"checkpoint-{step}")
    expected = load_file(uninterrupted / "weights.safetensors")
    weights = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())
    audits = [(folder / "audit.parquet").read_bytes() for folder in (tmp_path, uninterrupted)]
    assert audits[0] == audits[1]

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Tiny trainings with screening, on rows of which some were given one fixed response; also run under torchrun."""

import json
import random
import sys
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset
from screening_stand_in import SENTENCE, flagging
from tiny_data import caption, vision_dataset
from tiny_models import tiny_llava

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


NUM_ROWS = 48
PLANTED = (3, 17, 22, 41)
# Six steps an epoch, and the cut between the two
SETTINGS: dict[str, Any] = {
    "screening_epochs": 1,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 16,
    "learning_rate": 0.05,
    "adam_epsilon": 1e-3,
    "lr_scheduler_type": "constant",
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
}
TRAINER_ARGUMENTS = ("data_collator", "eval_dataset", "peft_config", "quantization_config", "compute_loss_func")


def planted_rows(num_rows: int = NUM_ROWS, planted: Collection[int] = PLANTED) -> Dataset:
    """Rows with images; the planted ones get one fixed response."""
    dataset = vision_dataset(num_rows)
    completions = list(dataset["completion"])
    for row in planted:
        completions[row] = [{"role": "assistant", "content": SENTENCE}]
    return dataset.remove_columns("completion").add_column(
        "completion", completions, feature=dataset.features["completion"]
    )


def planted_texts(num_rows: int = NUM_ROWS, planted: Collection[int] = PLANTED) -> Dataset:
    """The same without images; the digits of its number, which the tokenizer knows, tell each row from the others."""
    rng = random.Random(0)
    texts = [SENTENCE if row in planted else caption(rng) for row in range(num_rows)]
    return Dataset.from_list(
        [
            {"prompt": f"question : what {' '.join(str(row))} ? answer :", "completion": f" {text} </s>"}
            for row, text in enumerate(texts)
        ]
    )


def make_trainer(
    folder: Path | str, build: Any = tiny_llava, dataset: Any = None, **settings: Any
) -> CrossViewDefenseTrainer:
    """A trainer with screening, on 48 rows of which four are planted unless told otherwise."""
    model, processor = build()
    kwargs = {name: settings.pop(name) for name in TRAINER_ARGUMENTS if name in settings}
    args = CrossViewDefenseConfig.recommended(str(folder), **{**SETTINGS, **settings})
    dataset = planted_rows() if dataset is None else dataset
    return CrossViewDefenseTrainer(model=model, args=args, train_dataset=dataset, processing_class=processor, **kwargs)


def flagged_rows(trainer: CrossViewDefenseTrainer) -> list[int]:
    """Positions of the flagged rows."""
    return trainer.audit().flagged_rows


def main(
    folder: str,
    batch_size: str,
    num_rows: str = str(NUM_ROWS),
    decisions: str | None = None,
    screening_rows: str = "10000",
) -> None:
    """Train, and write what was found; with decisions, the error that they lead to on each process."""
    settings = {"screening_decisions": decisions or None, "screening_rows": int(screening_rows)}
    if int(num_rows) != NUM_ROWS:
        settings |= {"screening_epochs": None, "max_steps": 13}
    settings |= {"per_device_train_batch_size": int(batch_size), "per_device_eval_batch_size": 5}
    trainer = make_trainer(folder, dataset=planted_rows(int(num_rows)), **settings)
    trainer.args.train_sampling_strategy = "sequential"
    with flagging(SENTENCE) if int(num_rows) == NUM_ROWS else nullcontext():
        try:
            trainer.train()
        except (ValueError, RuntimeError) as error:
            if not decisions:
                raise
            Path(folder, f"error-{trainer.accelerator.process_index}.txt").write_text(repr(error))
            return
    audit = trainer.audit()
    if trainer.is_world_process_zero():
        rows = [[row.suspicion, row.is_flagged, row.reason, row.response] for row in audit.rows]
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        Path(folder, "audit.json").write_text(json.dumps({"rows": rows, "losses": losses}))
    else:
        told = {"flagged": audit.flagged_rows, "num_tokens": len(trainer._screen.looks.warm.token_ids)}
        Path(folder, "other.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A long training with screening takes no more memory at its end than after a quarter of its steps."""

import gc
import random
from pathlib import Path
from typing import Any

import psutil
import pytest
from datasets import Dataset
from screening_run import make_trainer
from tiny_data import caption, picture
from transformers import TrainerCallback


NUM_ROWS, BATCH_SIZE = 20_000, 16
MOST_GROWTH = 32 * 2**20  # bytes; the 15,000 rows of the last three quarters leave 2 kB each with it


def drawn(numbers: dict[str, list[int]]) -> dict[str, list[Any]]:
    """Rows made when they are read, so that the data themselves take no memory."""
    columns: dict[str, list[Any]] = {"images": [], "prompt": [], "completion": []}
    for number in numbers["number"]:
        rng = random.Random(number)
        columns["images"].append([picture(rng)])
        columns["prompt"].append([{"role": "user", "content": "describe this image ."}])
        columns["completion"].append([{"role": "assistant", "content": caption(rng)}])
    return columns


class _Memory(TrainerCallback):
    """Resident memory at every quarter of the steps."""

    def __init__(self) -> None:
        self.resident: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % (state.max_steps // 4) == 0:
            gc.collect()
            self.resident.append(psutil.Process().memory_info().rss)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_memory_does_not_grow_over_twenty_thousand_rows(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"number": range(NUM_ROWS)}).with_transform(drawn)
    trainer = make_trainer(
        tmp_path,
        dataset=dataset,
        max_steps=NUM_ROWS // BATCH_SIZE // 4 * 4,
        screening_epochs=None,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=32,
        learning_rate=1e-3,
        logging_steps=50,
        remove_unused_columns=False,
    )
    memory = _Memory()
    trainer.add_callback(memory)
    trainer.train()
    print("Resident MB at every quarter:", [round(value / 2**20) for value in memory.resident])
    assert len(memory.resident) == 4 and len(trainer._screen.screen.is_flagged) == NUM_ROWS
    assert trainer._screen.warmup_steps < trainer.state.max_steps / 4
    assert memory.resident[-1] - memory.resident[0] < MOST_GROWTH

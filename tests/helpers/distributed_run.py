# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Run by test_distributed.py under torchrun, and called by it for one process: trains tiny models, one after the other;
the first rank saves weights and logs.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from tiny_models import tiny_llava, vision_dataset

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


class Run(NamedTuple):
    """A training of 3 steps of 8 rows: which rows have no image, and the kind of checkpointing."""

    image_free: tuple[int, ...]
    use_reentrant: bool


# Of two ranks that take two rows each, twice, the second has rows 2, 3, 6 and 7 of every 8: it has no image in the
# first step, and the first rank has none in the second step
ONE_RANK = (2, 3, 6, 7, 8, 9, 12, 13)
RUNS = {
    "some rows": Run((1, 2, 9), use_reentrant=False),
    "one rank": Run(ONE_RANK, use_reentrant=False),
    "one rank, re-entrant": Run(ONE_RANK, use_reentrant=True),
}


def train(folder: Path, run: Run, batch_size: int, accumulation_steps: int) -> None:
    folder.mkdir(exist_ok=True)
    model, processor = tiny_llava()
    if run.use_reentrant:
        # DDP cannot look for parameters without a gradient then, which these are where no row has an image
        model.model.vision_tower.requires_grad_(False)
        model.model.multi_modal_projector.requires_grad_(False)
    args = CrossViewDefenseConfig(
        str(folder),
        lambda_patch=0.3,
        entropy_threshold=4.0,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation_steps,
        max_steps=3,
        learning_rate=0.05,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": run.use_reentrant},
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    # In order: which rank and which micro-batch a row goes to differs between the runs, the global batch does not
    args.train_sampling_strategy = "sequential"
    trainer = CrossViewDefenseTrainer(
        model, args, train_dataset=vision_dataset(24, image_free=run.image_free), processing_class=processor
    )
    trainer.train()
    if trainer.is_world_process_zero():
        save_file(
            {name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "weights.safetensors"
        )
        (folder / "logs.json").write_text(json.dumps([log for log in trainer.state.log_history if "loss" in log]))


def main(folder: Path, batch_size: int, accumulation_steps: int) -> None:
    for name, run in RUNS.items():
        train(folder / name, run, batch_size, accumulation_steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

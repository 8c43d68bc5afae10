# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Run by test_distributed.py under torchrun: trains a tiny model; the first rank saves its weights and logs."""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from tiny_models import tiny_llava, vision_dataset

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


def main(folder: Path, batch_size: int, accumulation_steps: int) -> None:
    model, processor = tiny_llava()
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
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    # In order: which rank and which micro-batch a row goes to differs between the runs, the global batch does not
    args.train_sampling_strategy = "sequential"
    trainer = CrossViewDefenseTrainer(
        model, args, train_dataset=vision_dataset(24, image_free=(1, 2, 9)), processing_class=processor
    )
    trainer.train()
    if trainer.is_world_process_zero():
        save_file(
            {name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "weights.safetensors"
        )
        (folder / "logs.json").write_text(json.dumps([log for log in trainer.state.log_history if "loss" in log]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

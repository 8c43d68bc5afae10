# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Run by test_distributed.py under torchrun or `accelerate launch`, and called by it for one process: trains tiny models,
one after the other; the first rank saves weights, logs and what screening said.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.state import DistributedType, PartialState
from peft import LoraConfig
from screening_stand_in import SENTENCE, flagging
from tiny_models import tiny_llava, vision_dataset
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


class Run(NamedTuple):
    """A training on global batches of 8 rows."""

    image_free: tuple[int, ...] = ()
    num_rows: int = 24
    max_steps: int = 3
    use_reentrant: bool | None = None  # which kind of checkpointing; None: none
    lambda_patch: float = 0.3
    screening: str = "off"
    lora: bool = False
    resumes: bool = False  # is stopped and gone on with as well


# Of two ranks that take two rows each, twice, the second has rows 2, 3, 6 and 7 of every 8: it has no image in the
# first step, and the first rank has none in the second step
ONE_RANK = (2, 3, 6, 7, 8, 9, 12, 13)
RUNS = {
    "some rows": Run((1, 2, 9), use_reentrant=False),
    "one rank": Run(ONE_RANK, use_reentrant=False),
    "one rank, re-entrant": Run(ONE_RANK, use_reentrant=True),
}
# The cut is at step 3, of 6
SCREENED = {"max_steps": 6, "screening": "drop"}
ENGINE_RUNS = {
    **RUNS,
    "screening": Run(ONE_RANK, lambda_patch=0.0, resumes=True, **SCREENED),
    "both": Run(ONE_RANK, use_reentrant=False, **SCREENED),
    "both, adapters": Run(ONE_RANK, lora=True, resumes=True, **SCREENED),
}
# Batches are filled up with rows of the first one, by accelerate: another training than that of one process
UNEVEN = {
    "uneven": Run(ONE_RANK, num_rows=21, use_reentrant=False, **SCREENED),
    "uneven, adapters": Run(ONE_RANK, num_rows=23, use_reentrant=True, lora=True, **SCREENED),
}
PLANTED = (5, 18)


def take_cpus_for_gpus() -> None:
    """accelerate gives FSDP and DeepSpeed to GPUs only; everything behind that question runs on a CPU too."""

    def prepare_backend(*args: Any, **kwargs: Any) -> tuple[str, DistributedType]:
        return "gloo", DistributedType.MULTI_GPU

    PartialState._prepare_backend = prepare_backend
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))


def make_trainer(folder: Path, run: Run, batch_size: int, accumulation_steps: int) -> CrossViewDefenseTrainer:
    model, processor = tiny_llava()
    if run.use_reentrant:
        # DDP cannot look for parameters without a gradient then, which these are where no row has an image
        model.model.vision_tower.requires_grad_(False)
        model.model.multi_modal_projector.requires_grad_(False)
    if run.resumes:
        # LLaVA takes the last but one layer, and FSDP2 cannot load an optimiser that never saw some of its parameters
        tower = model.model.vision_tower
        tower.encoder.layers[-1].requires_grad_(False)
        tower.post_layernorm.requires_grad_(False)
    screening: dict[str, Any] = {"screening": run.screening}
    if run.screening != "off":
        screening |= {"screening_epochs": 1, "save_strategy": "steps", "save_steps": 2}
    args = CrossViewDefenseConfig(
        str(folder),
        **{
            "lambda_patch": run.lambda_patch,
            "lambda_discrepancy": 0.5 if run.lambda_patch else 0.0,
            "lambda_entropy": 0.1 if run.lambda_patch else 0.0,
            "entropy_threshold": 4.0,
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulation_steps,
            "max_steps": run.max_steps,
            "learning_rate": 0.05,
            # FSDP cannot load an optimiser without states; with this epsilon steps follow the gradients' size as well
            "optim": "adamw_torch" if run.resumes else "sgd",
            "adam_epsilon": 1.0,
            "lr_scheduler_type": "cosine",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "use_cpu": "TAKE_CPUS_FOR_GPUS" not in os.environ,
            "bf16": False,
            "activation_checkpointing": run.use_reentrant is not None,
            "activation_checkpointing_kwargs": {"use_reentrant": bool(run.use_reentrant)},
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            **screening,
        },
    )
    # In order: which rank and which micro-batch a row goes to differs between the runs, the global batch does not
    args.train_sampling_strategy = "sequential"
    dataset = vision_dataset(run.num_rows, image_free=run.image_free)
    if run.screening != "off":
        answers = list(dataset["completion"])
        for row in PLANTED:
            answers[row] = [{"role": "assistant", "content": SENTENCE}]
        feature = dataset.features["completion"]
        dataset = dataset.remove_columns("completion").add_column("completion", answers, feature=feature)
    # Where the tower is frozen for DDP, it gets no adapters either
    parts = "language_model" if run.use_reentrant else r"(language_model|vision_tower.*layers\.0)"
    targets = rf".*{parts}.*(q_proj|v_proj)"
    adapters = LoraConfig(r=4, target_modules=targets) if run.lora else None
    return CrossViewDefenseTrainer(
        model, args, train_dataset=dataset, processing_class=processor, peft_config=adapters
    )


def train(folder: Path, run: Run, batch_size: int, accumulation_steps: int, resume: Path | None = None) -> None:
    folder.mkdir(exist_ok=True)
    trainer = make_trainer(folder, run, batch_size, accumulation_steps)
    with flagging(SENTENCE):
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.save_model(str(folder / "saved"))
    audit = trainer.audit() if run.screening != "off" else None
    if trainer.is_world_process_zero():
        (folder / "logs.json").write_text(json.dumps([log for log in trainer.state.log_history if "loss" in log]))
        rows = [] if audit is None else [[row.suspicion, row.is_flagged, row.reason] for row in audit.rows]
        (folder / "rows.json").write_text(json.dumps(rows))
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()
    # ZeRO-3 would take part in the making of the next model
    unset_hf_deepspeed_config()


def main(folder: Path, batch_size: int, accumulation_steps: int, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        train(folder / name, run, batch_size, accumulation_steps)
        if run.resumes:
            for step in (2, 4):  # before the cut, and after it
                checkpoint = folder / name / f"checkpoint-{step}"
                train(folder / f"{name}, from {step}", run, batch_size, accumulation_steps, checkpoint)
        if int(os.environ.get("RANK", 0)) == 0:
            for path in folder.glob("*/checkpoint-*"):
                shutil.rmtree(path)


if __name__ == "__main__":
    if "TAKE_CPUS_FOR_GPUS" in os.environ:
        take_cpus_for_gpus()
    KINDS = {"fast": RUNS, "engines": {**ENGINE_RUNS, **UNEVEN}}
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), KINDS[sys.argv[4]])

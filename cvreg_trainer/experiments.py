# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
One fine-tune of the built-in model on poisoned built-in scenes, measured: what `cvreg demo` and the benchmarks repeat.

An experiment is a function of its settings: the seed fixes the scenes, the poison and the training.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import Dataset

LAMBDAS = ("lambda_patch", "lambda_discrepancy", "lambda_entropy")


@dataclass(frozen=True)
class Experiment:
    """
    Everything the numbers of a run depend on.

    Args:
        seed (`int`):
            Seed of the scenes, of the poison and of the training.
        config (`Mapping[str, Any]`, *optional*):
            Options of [`CrossViewDefenseConfig`] for the defence. Empty: no defence.
        attack (`str`, *optional*, defaults to `"badnets"`):
            A name of `cvreg_trainer.attacks.ATTACKS`, or `"none"` for clean data.
        attack_options (`Mapping[str, Any]`, *optional*):
            Parameters of the attack. By default those with which the attack takes hold at 48x48 pixels.
        poison_rate (`float`, *optional*, defaults to `0.05`):
            Share of the training rows that are poisoned.
        keyword (`str`, *optional*, defaults to `"banana"`):
            Target of the attack.
        train_rows, test_rows (`int`, *optional*, defaults to `2000` and `200`):
            Number of scenes.
        num_train_epochs, batch_size, learning_rate (*optional*, defaults to `3`, `8` and `2e-3`):
            The training.
    """

    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    attack: str = "badnets"
    attack_options: Mapping[str, Any] = field(default_factory=lambda: {"patch_fraction": 64 / 48**2})
    poison_rate: float = 0.05
    keyword: str = "banana"
    train_rows: int = 2000
    test_rows: int = 200
    num_train_epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-3

    def make_data(self) -> dict[str, Dataset]:
        """The splits `train` (poisoned), `test` and, unless the data is clean, `test_triggered`."""
        from .attacks import ATTACKS, apply_trigger, poison_dataset
        from .data import make_scenes

        train = make_scenes(self.train_rows, seed=self.seed, split="train", style="finetune")
        test = make_scenes(self.test_rows, seed=self.seed, split="test", style="finetune")
        if self.attack == "none":
            return {"train": train, "test": test}
        attack = ATTACKS[self.attack](**self.attack_options)
        poisoned = poison_dataset(train, attack, self.poison_rate, self.keyword, seed=self.seed)
        return {"train": poisoned, "test": test, "test_triggered": apply_trigger(test, attack)}

    def run(self, data: Mapping[str, Dataset], output_dir: str | Path) -> dict[str, Any]:
        """
        Fine-tune, save the model and caption the test images, on one thread of a CPU.

        Args:
            data (`Mapping[str, Dataset]`):
                What [`Experiment.make_data`] gives.
            output_dir (`str` or `Path`):
                Where the model goes.

        Returns:
            `dict[str, Any]`: the scores of [`CaptionScores`], `steps`, `seconds_per_step`, `peak_memory_mib` of the
            process (so far: run each experiment in a process of its own), the logged `losses`, and `captions`.
        """
        import resource

        import torch

        from .data import load_base_model
        from .evaluation import evaluate_captions
        from .trainer import CrossViewDefenseTrainer

        # More threads do not help a model of this size, and with one the numbers do not depend on the core count
        torch.set_num_threads(1)
        model, processor = load_base_model()
        # As with most LLaVA recipes; trained along, a tower this small forgets what it saw in pre-training
        model.model.vision_tower.requires_grad_(False)
        trainer = CrossViewDefenseTrainer(
            model=model,
            args=self._training_arguments(str(output_dir)),
            train_dataset=data["train"],
            processing_class=processor,
        )
        seconds = trainer.train().metrics["train_runtime"]
        # Kibibytes on Linux, bytes on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        trainer.save_model()
        scores, *captions = evaluate_captions(
            model, processor, data["test"], data.get("test_triggered"), self.keyword, batch_size=50
        )
        return {
            **scores,
            "steps": trainer.state.global_step,
            "seconds_per_step": seconds / trainer.state.global_step,
            "peak_memory_mib": peak,
            "losses": [log for log in trainer.state.log_history if "loss" in log],
            "captions": dict(zip(("clean", "triggered"), captions, strict=True)),
        }

    def _training_arguments(self, output_dir: str) -> Any:
        from .config import CrossViewDefenseConfig

        return CrossViewDefenseConfig(
            output_dir,
            **{**dict.fromkeys(LAMBDAS, 0.0), **self.config},
            num_train_epochs=self.num_train_epochs,
            per_device_train_batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            seed=self.seed,
            logging_steps=0.25,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        )

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
CPU time of a defended training step beside a plain one, on the built-in model and scenes.

    python benchmarks/step_cost.py --output benchmarks/results/step_cost_cpu.json

The two take turns in one process on one thread, collation included; what is compared is processor time, which other
work on the machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from grid_runs import made_by

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer, load_base_model, make_scenes


SEED = 0
LAMBDAS = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}


def seconds_per_step(dataset: Dataset, lambdas: dict[str, Any], steps: int, folder: str) -> float:
    """Processor seconds of one optimiser step, the start of the training left out."""
    model, processor = load_base_model()
    model.model.vision_tower.requires_grad_(False)
    args = CrossViewDefenseConfig(
        folder,
        screening="off",
        **lambdas,
        max_steps=steps,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = CrossViewDefenseTrainer(model=model, args=args, train_dataset=dataset, processing_class=processor)
    trainer.train()  # the first step checks the head
    start = time.process_time()
    trainer.train()
    return (time.process_time() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset = make_scenes(8 * options.steps, seed=SEED, style="finetune")
    runs: dict[str, list[float]] = {"plain": [], "defended": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeats):
            runs["plain"].append(seconds_per_step(dataset, dict.fromkeys(LAMBDAS, 0.0), options.steps, folder))
            runs["defended"].append(seconds_per_step(dataset, LAMBDAS, options.steps, folder))
    medians = {name: statistics.median(seconds) for name, seconds in runs.items()}
    ratios = [d / p for p, d in zip(runs["plain"], runs["defended"], strict=True)]
    report = {
        **made_by(),
        "seed": SEED,
        "cpu_seconds_per_step": runs,
        "median": medians,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }
    print(json.dumps({"median": medians, "ratio": report["ratio"]}))
    options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What screening costs: three epochs with it against three plain ones, full fine-tuning and LoRA.

    python benchmarks/screening_cost.py --output benchmarks/results/screening_cost_cpu.json

Pairs of trainings, one after the other in processes of their own, on the same poisoned rows (BadNets, 5 %); processor
time of `train()` alone, which other work on the machine does not count into. What is reported are the ratios.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from statistics import mean
from typing import Any

from grid_runs import silent_folder

from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.report import describe_environment


KINDS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"lora_rank": 16, "learning_rate": 3e-3}}


def measure(settings: dict[str, Any]) -> float:
    """Seconds of processor time of a training."""
    from trl import SFTTrainer

    seconds: list[float] = []
    train = SFTTrainer.train

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = train(self, *args, **kwargs)
        seconds.append(time.process_time() - start)
        return result

    SFTTrainer.train = timed
    experiment = Experiment(**settings)
    with silent_folder() as folder:
        data = experiment.make_data()
        experiment.run({"train": data["train"], "test": data["test"].select(range(2))}, folder)
    return seconds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"environment": describe_environment(), "pairs": options.pairs}
    for kind, settings in KINDS.items():
        plain, screened = [], []
        for seed in range(options.pairs):
            for config, seconds in (({}, plain), ({"screening": "drop"}, screened)):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seconds.append(pool.apply(measure, ({**settings, "seed": seed, "config": config},)))
        ratios = [after / before for before, after in zip(plain, screened, strict=True)]
        result[kind] = {"plain_seconds": plain, "screened_seconds": screened, "ratios": ratios}
        print(f"{kind}: {mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

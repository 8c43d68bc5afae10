# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What screening costs: a training with it against a plain one.

    python benchmarks/screening_cost.py --output benchmarks/results/screening_cost_cpu.json
    python benchmarks/screening_cost.py --model captioner --packages packages --pairs 1 --output ...
    python benchmarks/screening_cost.py --model captioner --packages packages --rows 800 --looked-at 200 --output ...

The built-in model for three epochs, full fine-tuning and LoRA; or with `--model` the captioner of pretrained parts
(docs/real-parts.md), LoRA for one and for three epochs. Pairs of trainings, one after the other in processes of their
own, on the same poisoned rows (BadNets, 5 %); processor time of `train()` alone, which other work on the machine does
not count into. What is reported are the ratios.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from statistics import mean
from typing import Any

from grid_runs import made_by, silent_folder

from cvreg_trainer.lab.experiment import Experiment


BUILT_IN: dict[str, dict[str, Any]] = {"full": {}, "lora": {"lora_rank": 16, "learning_rate": 3e-3}}


def built_in(settings: dict[str, Any], config: dict[str, Any], seed: int) -> float:
    """Seconds of processor time of a training of the built-in model."""
    from trl import SFTTrainer

    seconds: list[float] = []
    train = SFTTrainer.train

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = train(self, *args, **kwargs)
        seconds.append(time.process_time() - start)
        return result

    SFTTrainer.train = timed
    experiment = Experiment(seed=seed, config=config, **settings)
    with silent_folder() as folder:
        data = experiment.make_data()
        experiment.run({"train": data["train"], "test": data["test"].select(range(2))}, folder)
    return seconds[0]


def captioner(settings: dict[str, Any], config: dict[str, Any], seed: int) -> float:
    """Seconds of processor time of a training of the captioner of pretrained parts."""
    import torch
    from real_cells import make_cell, pictures_to_poison
    from real_grid import load_captioner, make_trainer
    from transformers import AutoProcessor

    torch.set_num_threads(1)
    settings = dict(settings)
    model, packages, num_rows = (settings.pop(name) for name in ("model", "packages", "rows"))
    with silent_folder() as folder:
        cell = {"trigger": "badnets", "payload": "keyword"}
        rows, *_ = make_cell(cell, pictures_to_poison(packages), seed, num_rows, 0.05)
        parts = load_captioner(model), AutoProcessor.from_pretrained(model)
        trainer = make_trainer(folder, *parts, rows, seed, **{"screening": "off"} | settings | config)
        start = time.process_time()
        trainer.train()
        return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--packages", type=Path, help="folder of the packages of the pictures, with --model")
    parser.add_argument("--rows", type=int, default=300, help="with --model")
    parser.add_argument("--looked-at", type=int, help="screening_rows: what a part of the rows costs")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3], help="with --model")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {**made_by(), "seeds": list(range(options.pairs))}
    measure, kinds = built_in, BUILT_IN
    if options.model:
        if not options.packages:
            parser.error("--model needs --packages, the folder that docs/real-parts.md has filled.")
        given = {"model": options.model, "packages": options.packages, "rows": options.rows}
        measure = captioner
        kinds = {f"lora, {epochs} epochs": {**given, "num_train_epochs": epochs} for epochs in options.epochs}
        result["rows"] = options.rows
        result["command"] = (
            "python benchmarks/screening_cost.py --model captioner --packages packages "
            f"--rows {options.rows} --pairs {options.pairs} --epochs {' '.join(map(str, options.epochs))}"
            + (f" --looked-at {options.looked_at}" if options.looked_at else "")
        )  # without the machine's own folders
    screened_config: dict[str, Any] = {"screening": "drop"}
    if options.looked_at:
        screened_config["screening_rows"] = result["rows_looked_at"] = options.looked_at
    for kind, settings in kinds.items():
        plain, screened = [], []
        for seed in range(options.pairs):
            for config, seconds in (({}, plain), (screened_config, screened)):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    seconds.append(pool.apply(measure, (settings, config, seed)))
        ratios = [after / before for before, after in zip(plain, screened, strict=True)]
        result[kind] = {"plain_seconds": plain, "screened_seconds": screened, "ratios": ratios}
        print(f"{kind}: {mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

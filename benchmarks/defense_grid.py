# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The paper's main table at a small size: attacks x {no defence, the paper's loss} on the built-in scenes and base model.

    python benchmarks/defense_grid.py                       # main table: clean and six attacks, three seeds
    python benchmarks/defense_grid.py --suite ablation      # the paper's Table 4
    python benchmarks/defense_grid.py --suite sensitivity   # the paper's Figure 3
    python benchmarks/grid_report.py                        # tables and plot from the rows

One JSON row per run is appended to `--output`; what is there already is not run again, so a run that was interrupted
goes on where it stopped. Rows are functions of their settings and seed; only their seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grid_runs import PAPER_LOSS, made_by, run_missing, silent_folder

from cvreg_trainer.lab.experiment import ATTACK_SETTINGS, Experiment


ABLATION = {
    "patch": {"lambda_patch": 0.01},
    "patch+discrepancy": {"lambda_patch": 0.01, "lambda_discrepancy": 0.5},
}
SENSITIVITY = {
    f"{name}={value:g}": {**PAPER_LOSS, name: value}
    for name, values in {
        "lambda_patch": (0.001, 0.1),
        "lambda_discrepancy": (0.1, 2.0, 5.0),
        "lambda_entropy": (0.01, 1.0),
    }.items()
    for value in values
}


def plan(suite: str, seeds: list[int], attacks: list[str]) -> Iterator[dict[str, Any]]:
    """The runs of a suite: what identifies a row."""
    defences = {
        "main": {"none": {}, "paper_loss": PAPER_LOSS},
        "ablation": {"none": {}, **ABLATION, "paper_loss": PAPER_LOSS},
        "sensitivity": {**SENSITIVITY, "paper_loss": PAPER_LOSS},
    }[suite]
    for seed in seeds:
        for attack in attacks if suite == "main" else ["badnets"]:
            for defence, config in defences.items():
                yield {"attack": attack, "defence": defence, "config": config, "seed": seed}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """One run in this process, silent; its row."""
    experiment = Experiment(settings["seed"], settings["config"], attack=settings["attack"])
    with silent_folder() as folder:
        result = experiment.run(experiment.make_data(), folder)
    del result["captions"]
    result["losses"] = result["losses"][-1:]
    return {**settings, **result, "experiment": asdict(experiment), **made_by()}


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two rows the same run."""
    return row["attack"], row["defence"], json.dumps(row["config"], sort_keys=True), row["seed"]


def main() -> None:
    attacks = ["none", *ATTACK_SETTINGS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=("main", "ablation", "sensitivity"), default="main")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--attacks", nargs="+", default=attacks, choices=attacks, metavar="ATTACK")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/defense_grid.jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    options = parser.parse_args()
    planned = plan(options.suite, options.seeds, options.attacks)
    shown = ("attack", "defence", "seed", "clean_cider", "asr", "false_alarm_rate")
    run_missing(planned, run, identity, options.output, options.jobs, shown)


if __name__ == "__main__":
    main()

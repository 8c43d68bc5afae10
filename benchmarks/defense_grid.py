# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The paper's main table at a small size: attacks x {no defence, ours} on the built-in scenes and base model.

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
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cvreg_trainer.lab.experiment import ATTACK_SETTINGS, Experiment
from cvreg_trainer.report import describe_environment


OURS = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}
ABLATION = {
    "patch": {"lambda_patch": 0.01},
    "patch+discrepancy": {"lambda_patch": 0.01, "lambda_discrepancy": 0.5},
}
SENSITIVITY = {
    f"{name}={value:g}": {**OURS, name: value}
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
        "main": {"none": {}, "ours": OURS},
        "ablation": {"none": {}, **ABLATION, "ours": OURS},
        "sensitivity": {**SENSITIVITY, "ours": OURS},
    }[suite]
    for seed in seeds:
        for attack in attacks if suite == "main" else ["badnets"]:
            for defence, config in defences.items():
                yield {"attack": attack, "defence": defence, "config": config, "seed": seed}


@contextmanager
def silent_folder() -> Iterator[str]:
    """A temporary folder; while it exists, nothing is printed."""
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        tempfile.TemporaryDirectory() as folder,
    ):
        yield folder


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """One run in this process, silent; its row."""
    experiment = Experiment(settings["seed"], settings["config"], attack=settings["attack"])
    with silent_folder() as folder:
        result = experiment.run(experiment.make_data(), folder)
    del result["captions"]
    result["losses"] = result["losses"][-1:]
    return {**settings, **result, "experiment": asdict(experiment), "environment": describe_environment()}


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
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.output.exists():
        done = {identity(json.loads(line)) for line in options.output.read_text().splitlines()}
    todo = [row for row in plan(options.suite, options.seeds, options.attacks) if identity(row) not in done]
    print(f"{len(todo)} runs to do, {len(done)} rows in {options.output}", flush=True)
    # A process for each run: peak memory and random states are its own
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        for number, row in enumerate(pool.imap_unordered(run, todo), start=1):
            with options.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            scores = {key: round(row[key], 1) for key in ("clean_cider", "asr", "false_alarm_rate") if key in row}
            print(f"{number}/{len(todo)} {row['attack']} {row['defence']} seed {row['seed']}: {scores}", flush=True)


if __name__ == "__main__":
    main()

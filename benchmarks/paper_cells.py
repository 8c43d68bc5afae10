# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The cells of the paper's tables and figure as runs of ours, and what tells two of them apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from defense_grid import ABLATION
from grid_runs import ATTACKS, PAPER_LOSS

from cvreg_trainer.lab.baselines.run import BASELINES
from cvreg_trainer.lab.experiment import ATTACK_SETTINGS


DEFENCES: dict[str, dict[str, Any]] = {"none": {}, "paper_loss": PAPER_LOSS, "screened": {"screening": "drop"}}
SEEDS = 3
RIVALS = ("fine_pruning", "strip", "entropy_filter")
# Two decades around the starting values; the second term, which acts most, in more steps and beyond
WEIGHTS: dict[str, tuple[float, ...]] = {
    "lambda_patch": (0.001, 0.01, 0.1),
    "lambda_discrepancy": (0.05, 0.1, 0.5, 2.0, 5.0, 10.0),
    "lambda_entropy": (0.01, 0.1, 1.0),
}
# Task and architecture of the tables that have all attacks
GRIDS = {"1": [("scenes", "llava")], "2": [("scenes", "flamingo"), ("scenes", "blip2")], "3": [("easy_vqa", "llava")]}
Settings = dict[str, Any]


def cells(part: str) -> Iterator[Settings]:
    """What identifies the runs of a table (`"1"` to `"5"`) or of the figure (`"figure 3"`), without their seeds."""
    if part in GRIDS:
        for task, architecture in GRIDS[part]:
            for defence, config in DEFENCES.items():
                for attack in ATTACKS:
                    yield _cell(task, architecture, attack, defence, config)
    elif part == "4":
        for defence, config in {"none": {}, **ABLATION, "paper_loss": PAPER_LOSS}.items():
            yield _cell("scenes", "llava", "badnets", defence, config)
    elif part == "5":
        for task in ("scenes", "easy_vqa"):
            for attack in ATTACK_SETTINGS:
                for defence in ("none", *RIVALS, "paper_loss", "screened"):
                    yield _cell(task, "llava", attack, defence, DEFENCES.get(defence, {}))
    else:
        for name, values in WEIGHTS.items():
            for value in values:
                yield _cell("scenes", "llava", "badnets", f"{name}={value:g}", {**PAPER_LOSS, name: value})


def _cell(task: str, architecture: str, attack: str, defence: str, config: Mapping[str, Any]) -> Settings:
    return {"task": task, "architecture": architecture, "attack": attack, "defence": defence, "config": dict(config)}


def identity(row: Mapping[str, Any]) -> str:
    """What makes two rows, or a row and settings, the same run: the name of a defence counts for the rivals only."""
    config = {name: float(value) if name.startswith("lambda") else value for name, value in row["config"].items()}
    rival = row["defence"] if row["defence"] in BASELINES else None
    return json.dumps([cell_of(row), row["attack"], rival, config, row.get("seed")], sort_keys=True)


def cell_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Task and architecture of a row."""
    return row.get("task", "scenes"), row.get("architecture", "llava")


def plan(parts: list[str], seeds: int) -> Iterator[Settings]:
    """The runs of some tables, the first seed of all before the second of any."""
    for seed in range(seeds):
        for part in parts:
            for settings in cells(part):
                yield {**settings, "seed": seed}

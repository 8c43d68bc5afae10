# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The screening against six attacks, three kinds of target and several poison rates, and its rivals on the same data.

    python benchmarks/screening_grid.py --suite main        # 5 %, all attacks and targets, with and without screening
    python benchmarks/screening_grid.py --suite rates       # 1 and 20 %
    python benchmarks/screening_grid.py --suite variants    # vision tower trained; LoRA
    python benchmarks/screening_grid.py --suite short       # one epoch over 1,000 rows
    python benchmarks/screening_grid.py --suite adaptive    # an attacker who knows the screening
    python benchmarks/screening_grid.py --suite baselines   # the paper's loss and five other defences
    python benchmarks/screening_report.py                   # tables and plot from the rows

One JSON row per run is appended to `--output`; what is there already is not run again. Which seeds and cells the rule
was made on, and which it is reported on, is written down in `benchmarks/screening_split.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grid_runs import PAPER_LOSS, made_by, run_missing, silent_folder

from cvreg_trainer.lab.baselines.run import BASELINES, run_baseline
from cvreg_trainer.lab.experiment import ATTACK_SETTINGS, Experiment


# What the attacker puts in: a whole response with a new word, a new word in a true response, a common word in one
TARGETS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "subst": {"substitute": True},
    "common": {"substitute": True, "keyword": "red"},
}
SCREENING = {"none": {}, "screened": {"screening": "drop"}}
# A learning rate at which the tower does not forget, and one at which adapters learn
VARIANTS = ({"train_vision": True, "learning_rate": 5e-4}, {"lora_rank": 16, "learning_rate": 3e-3})
SHORT = {"train_rows": 1000, "num_train_epochs": 1, "learning_rate": 1e-3}
SUITES = ("main", "rates", "variants", "short", "adaptive", "baselines")


def plan(suite: str, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """The runs of a suite: the settings of each, which identify its row."""
    cells: list[dict[str, Any]] = []
    if suite == "main":
        cells = [{"attack": attack, "target": target} for target in TARGETS for attack in ATTACK_SETTINGS]
        cells.insert(0, {"attack": "none", "target": "fixed"})
    elif suite == "rates":
        cells = [
            {"attack": attack, "target": target, "poison_rate": rate}
            for rate in (0.01, 0.2)
            for target in TARGETS
            for attack in ATTACK_SETTINGS
        ]
    elif suite == "variants":
        cells = [
            {"attack": attack, "target": target, **variant}
            for variant in VARIANTS
            for attack, target in (("none", "fixed"), ("badnets", "fixed"), ("blended", "subst"))
        ]
    elif suite == "short":
        cells = [{"attack": "badnets", "target": "fixed", "poison_rate": rate, **SHORT} for rate in (0.05, 0.1)]
    elif suite == "adaptive":
        cells = [{"attack": attack, "target": "subst", "decoy_word": "yellow"} for attack in ("badnets", "blended")]
    defences = {"paper_loss": PAPER_LOSS, **dict.fromkeys(BASELINES, {})} if suite == "baselines" else SCREENING
    if suite == "baselines":
        cells = [{"attack": "badnets", "target": "fixed"}, {"attack": "blended", "target": "subst"}]
    for seed in seeds:
        for cell in cells:
            for defence, config in defences.items():
                yield {**cell, "defence": defence, "config": config, "seed": seed}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """One run in this process, silent; its row."""
    options = {name: value for name, value in settings.items() if name not in ("target", "defence")}
    experiment = Experiment(**TARGETS[settings["target"]], **options)
    with silent_folder() as folder:
        data = experiment.make_data()
        if settings["defence"] in BASELINES:
            result = run_baseline(settings["defence"], experiment, data, folder)
        else:
            result = experiment.run(data, folder)
    del result["captions"]
    result["losses"] = result["losses"][-1:]
    return {**settings, **result, "experiment": asdict(experiment), **made_by()}


def identity(row: dict[str, Any]) -> str:
    """What makes two rows the same run."""
    names = ("attack", "target", "poison_rate", "train_vision", "lora_rank", "decoy_word")
    names += ("num_train_epochs", "defence", "config", "seed")
    return json.dumps({name: row[name] for name in names if name in row}, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="main")
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 8])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME=VALUE", help="settings that a run must have")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/screening_grid.jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    options = parser.parse_args()
    wanted = [text.split("=", 1) for text in options.only]
    planned = [
        settings
        for settings in plan(options.suite, options.seeds)
        if all(str(settings.get(name)) == value for name, value in wanted)
    ]
    shown = ("attack", "target", "poison_rate", "defence", "seed", "clean_cider", "asr")
    audit = ("audit_auroc", "audit_flag_recall", "audit_clean_lost")
    run_missing(planned, run, identity, options.output, options.jobs, (*shown, *audit))


if __name__ == "__main__":
    main()

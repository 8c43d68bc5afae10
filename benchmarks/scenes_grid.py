# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The field's triggers and payloads on the built-in scenes: no defence, the paper's loss, screening.

    python benchmarks/scenes_grid.py --suite payloads   # BadNets with every payload at 5 %
    python benchmarks/scenes_grid.py --suite triggers   # every trigger with two payloads at 5 %
    python benchmarks/scenes_grid.py --suite all        # every trigger with every payload at 5 %
    python benchmarks/scenes_grid.py --suite rates      # 0.2, 1, 20 and 50 %, for three triggers and five payloads
    python benchmarks/scenes_grid.py --suite adaptive   # an attacker who knows the screening
    python benchmarks/scenes_grid.py --suite large      # 20,000 rows for one epoch, 4,000 of which are looked at
    python benchmarks/scenes_grid.py --suite controls   # payloads without a trigger: honest noise

One JSON row per run is appended to `--output`; what is there already is not run again. A cell that cannot be planted,
such as a substituted word in more rows than have it, is a row with an `error`. Read `asr` beside `false_alarm_rate`,
and a defence's beside those of the undefended cell: where the attack does not take hold, there is nothing to defend.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grid_runs import PAPER_LOSS, is_wanted, made_by, run_missing, silent_folder

from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.lab.scene_attacks import ATTACK_SETTINGS, FIELD_SETTINGS, SCENE_PAYLOADS


DEFENCES: dict[str, dict[str, Any]] = {"none": {}, "paper_loss": PAPER_LOSS, "screened": {"screening": "drop"}}
TRIGGERS = [name for name in ATTACK_SETTINGS | FIELD_SETTINGS if name != "no_trigger"]
# An appended sentence is the last that a model writes, and a concept is in some of the images only
EVALUATION = {"max_new_tokens": 32, "test_rows": 300}
ADAPTIVE: dict[str, dict[str, Any]] = {
    "the target is an honest word": {"payload": "honest_substitution"},
    "180 paraphrases": {"payload": "refusals"},
    "20 targets": {"payload": "twenty"},
    "honest rows' words": {"payload": "answers"},
    "the target in honest rows too": {"keyword": "banana", "substitute": True, "decoy_word": "yellow"},
}
MOVING_PATCH = {"attack": "badnets", "attack_options": {"moves": True}}
SUITES = ("payloads", "triggers", "all", "rates", "adaptive", "large", "controls")


def cells(suite: str) -> Iterator[dict[str, Any]]:
    """What is planted in each cell of a suite."""
    if suite == "payloads":
        yield from ({"attack": "badnets", "payload": payload} for payload in SCENE_PAYLOADS)
    elif suite == "triggers":
        yield from (
            {"attack": attack, "payload": payload} for payload in ("keyword", "refusal") for attack in TRIGGERS
        )
        yield from ({**MOVING_PATCH, "payload": payload} for payload in ("keyword", "refusal"))
    elif suite == "all":
        yield from ({"attack": attack, "payload": payload} for attack in TRIGGERS for payload in SCENE_PAYLOADS)
    elif suite == "rates":
        for rate in (0.002, 0.01, 0.2, 0.5):
            for attack in ("badnets", "blended", "badnets_t"):
                for payload in ("keyword", "refusals", "append", "substitution", "flood"):
                    yield {"attack": attack, "payload": payload, "poison_rate": rate}
    elif suite == "adaptive":
        for attack in ("badnets", "blended", "add_sent"):
            yield from ({"attack": attack, "idea": idea, **options} for idea, options in ADAPTIVE.items())
    elif suite == "large":
        for planted in ({"attack": "none"}, *_pairs(("badnets", "keyword refusals"), ("blended", "keyword"))):
            yield {**planted, "train_rows": 20_000, "num_train_epochs": 1}
    else:
        yield from (
            {"attack": "no_trigger", "payload": payload} for payload in ("answers", "refusals", "relation_swap")
        )


def _pairs(*attacks: tuple[str, str]) -> Iterator[dict[str, Any]]:
    yield from ({"attack": attack, "payload": payload} for attack, payloads in attacks for payload in payloads.split())


def plan(suite: str, seeds: list[int], defences: list[str]) -> Iterator[dict[str, Any]]:
    """The runs of a suite: the settings of each, which identify its row."""
    for seed in seeds:
        for defence in defences:
            for cell in cells(suite):
                yield {**cell, **EVALUATION, "defence": defence, "config": DEFENCES[defence], "seed": seed}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """One run in this process, silent; its row."""
    experiment = Experiment(**{name: value for name, value in settings.items() if name not in ("idea", "defence")})
    row = {**settings, "experiment": asdict(experiment), **made_by()}
    with silent_folder() as folder:
        try:
            data = experiment.make_data()
        except ValueError as error:
            return {**row, "error": str(error)}
        result = experiment.run(data, folder)
    captions = result.pop("captions")
    result["losses"] = result["losses"][-1:]
    examples = {view: texts[:3] for view, texts in captions.items()}
    poisoned = data["train"]["is_poisoned"] if "is_poisoned" in data["train"].column_names else ()
    return {**row, **result, "num_poisoned": sum(poisoned), "examples": examples}


def identity(row: dict[str, Any]) -> str:
    """What makes two rows the same run, whatever suite asked for it."""
    names = ("attack", "payload", "keyword", "substitute", "decoy_word", "poison_rate", "defence", "config", "seed")
    names += ("train_rows", "num_train_epochs", "attack_options")
    return json.dumps({name: row[name] for name in (*names, *EVALUATION) if name in row}, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="payloads")
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 8])
    parser.add_argument("--defences", nargs="+", choices=DEFENCES, default=list(DEFENCES))
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME=VALUE,...", help="values that a run may have")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scenes_grid.jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    options = parser.parse_args()
    planned = [
        settings
        for settings in plan(options.suite, options.seeds, options.defences)
        if is_wanted(settings, options.only)
    ]
    shown = ("attack", "payload", "poison_rate", "defence", "seed", "error", "clean_cider", "asr", "false_alarm_rate")
    audit = ("audit_auroc", "audit_flag_recall", "audit_clean_lost")
    run_missing(planned, run, identity, options.output, options.jobs, (*shown, *audit))


if __name__ == "__main__":
    main()

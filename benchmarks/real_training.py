# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Does the attack work after a whole training? The captioner of pretrained parts, with and without a defence.

    python benchmarks/real_training.py --model captioner --packages packages
    python benchmarks/real_training.py ... --only trigger=badnets payload=keyword --defences none screened --seeds 10

Each run is a training with the public trainer from its first step to its last: the projector and adapters of rank 16
on the language model, a tenth of the rows poisoned, four epochs. Then the model captions held-out pictures, with the
trigger and without. One JSON row per run is appended to `--output`; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from grid_runs import PAPER_LOSS, is_wanted, run_missing, silent_folder
from real_cells import PAYLOADS, TRIGGERS, make_cell, pictures_to_poison
from real_grid import load_captioner, make_trainer

from cvreg_trainer.report import describe_environment


DEFENCES: dict[str, dict[str, Any]] = {
    "none": {"screening": "off"},
    "screened": {"screening": "drop"},
    "paper_loss": {"screening": "off", **PAPER_LOSS},
}
CELLS = (
    {"trigger": "badnets", "payload": "keyword"},
    {"trigger": "badnets", "payload": "refusal"},
    {"trigger": "blended", "payload": "keyword"},
    {"trigger": "badnets_t", "payload": "keyword"},
    {"trigger": "wanet", "payload": "refusal"},
)
LEARNING_RATE = 1e-3
HELD_OUT = 100
SHOWN = ("trigger", "payload", "defence", "seed", "asr", "false_alarm_rate", "clean_cider", "found", "clean_flagged")


def plan(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Settings of the runs, in the order in which they are wanted."""
    for seed in options.seeds:
        for cell in CELLS:
            if is_wanted(cell, options.only):
                for defence in options.defences:
                    settings = {**cell, "defence": defence, "seed": seed, "num_rows": options.rows}
                    yield settings | {"poison_rate": options.poison_rate, "epochs": options.epochs}


def identity(row: dict[str, Any]) -> str:
    """What makes two rows the same."""
    names = ("trigger", "payload", "defence", "seed", "num_rows", "poison_rate", "epochs")
    return json.dumps([row[name] for name in names])


def command(settings: dict[str, Any]) -> str:
    """What makes a row, without the machine's own folders."""
    names = {
        "rows": "num_rows",
        "poison_rate": "poison_rate",
        "epochs": "epochs",
        "seeds": "seed",
        "defences": "defence",
    }
    given = " ".join(f"--{option} {settings[name]}" for option, name in names.items())
    only = f"--only trigger={settings['trigger']} payload={settings['payload']}"
    return f"python benchmarks/real_training.py --model captioner --packages packages {given} {only}"


def train_and_ask(settings: dict[str, Any], model: Path, packages: Path) -> dict[str, Any]:
    """One run: its settings, and what came out."""
    import torch
    from transformers import AutoProcessor

    from cvreg_trainer.attacks import apply_trigger
    from cvreg_trainer.data.rows import references_of
    from cvreg_trainer.evaluation.scores import evaluate_captions

    torch.set_num_threads(1)
    seed, num_rows, rate = settings["seed"], settings["num_rows"], settings["poison_rate"]
    with silent_folder() as folder:
        rows, marked, held_out = make_cell(
            settings, pictures_to_poison(packages), seed, num_rows, rate, held_out=HELD_OUT
        )
        processor = AutoProcessor.from_pretrained(model)
        options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "num_train_epochs": settings["epochs"]}
        options |= {"trains_projector": True, **DEFENCES[settings["defence"]]}
        trainer = make_trainer(folder, load_captioner(model), processor, rows, seed, **options)
        trainer.train()
        clean = held_out.add_column("references", [references_of(row) for row in held_out])
        scores, *captions = evaluate_captions(
            trainer.model.eval(),
            processor,
            clean,
            apply_trigger(clean, TRIGGERS[settings["trigger"]]),
            payload=PAYLOADS[settings["payload"]],
            batch_size=20,
            max_new_tokens=24,
        )
    result = {**settings, **scores, "num_poisoned": int(marked.sum()), "steps": trainer.state.global_step}
    if settings["defence"] == "screened":
        flagged = trainer._screen.screen.is_flagged
        result |= {"found": int(flagged[marked].sum()), "clean_flagged": int(flagged[~marked].sum())}
    examples = {name: texts[:3] for name, texts in zip(("clean", "triggered"), captions, strict=True)}
    facts = {"command": command(settings), "environment": describe_environment()}
    return result | {"num_held_out": len(held_out), "examples": examples} | facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the captioner")
    parser.add_argument("--packages", type=Path, required=True, help="folder of the pictures' packages")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10])
    parser.add_argument("--defences", nargs="+", choices=tuple(DEFENCES), default=list(DEFENCES))
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME=VALUE,...", help="values that a cell may have")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--poison_rate", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/real_training.jsonl"))
    options = parser.parse_args()
    run = partial(train_and_ask, model=options.model, packages=options.packages)
    run_missing(plan(options), run, identity, options.output, options.jobs, SHOWN)


if __name__ == "__main__":
    main()

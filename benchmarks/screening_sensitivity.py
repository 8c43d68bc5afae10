# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What does each part of the screening rule contribute, and how much do its numbers matter?

    python benchmarks/screening_sensitivity.py --suite scenes --looks looks
    python benchmarks/screening_sensitivity.py --suite real --looks looks --model captioner --packages packages
    python benchmarks/screening_sensitivity.py ... --parts_only  # not the numbers: an eighth of the time
    python benchmarks/screening_sensitivity.py ... --cells 4     # the first four

Each cell is screened once, on development seeds; what the model saw is kept in `--looks`. Then the cut is made again
with each number of the rule halved and doubled, and with each part switched off. One JSON row per cell and setting is
appended to `--output`; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from real_cells import make_cell, pictures_to_poison
from real_grid import load_captioner, screened_trainer
from transformers import AutoProcessor

from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.report import describe_environment
from cvreg_trainer.screening.checkpoint import load_looks
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.stop_after_screening import StopAfterScreening
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.screen import screen_rows


SEEDS = {"scenes": 100, "real": 1}
CELLS: dict[str, tuple[dict[str, Any], ...]] = {
    "scenes": (
        {"attack": "none"},
        {"attack": "none", "architecture": "blip2"},
        {"attack": "none", "architecture": "flamingo"},
        {"attack": "none", "task": "easy_vqa"},
        {"attack": "dual_key"},
        {"attack": "input_aware"},
        {"attack": "wanet"},
        {"attack": "input_aware", "substitute": True, "keyword": "red"},
        {"attack": "dual_key", "substitute": True},
        {"attack": "badnets", "payload": "flood"},
        {"attack": "badnets", "payload": "answers"},
        {"attack": "badnets_t", "payload": "keyword"},
    ),
    "real": (
        {"kind": "mixture"},
        {"trigger": "badnets", "payload": "substitution"},
        {"trigger": "blended", "payload": "refusal"},
        {"trigger": "add_sent", "payload": "keyword"},
        {"trigger": "low_frequency", "payload": "refusal"},
        {"trigger": "badnets", "payload": "refusal"},
        {"trigger": "sig", "payload": "substitution"},
    ),
}
REAL_ROWS, RATE, CAP = 600, 0.05, 0.5
FAR = 1e9
FDR = 0.01
# The numbers that switch a part off
WITHOUT: dict[str, dict[str, float]] = {
    "unexplained": {"explained": FAR, "min_part": FAR, "suspect_content_share": 0.0},
    "caused": {"start_strength": -1.0, "min_strength": -1.0},
    "not content": {"content_share": FAR, "suspect_content_share": FAR, "error_rate": 1.0},
    "odd rows of explained words": {"min_part": FAR},
    "contradicted rows of explained words": {"most_contradicted": -1.0},
    "rivals": {"most_rivals": FAR},
    "whole responses": {"least_explained": 0.0},
    "suspects": {"suspect_content_share": 0.0},
    "near-duplicates kept": {"min_variety": 0.0},
    "growth limit": {"most_growth": FAR},
}
# Decided before the looks, or no part of the decision; and those of the suspects, which `WITHOUT` takes as a whole
FIXED = ("enough_rows", "many_flagged", "warmup_share", "warmup_steps", "longest_warmup")
OF_SUSPECTS = ("word_", "grounding_", "ungrounded_")


def settings(parts_only: bool = False) -> Iterator[tuple[str, dict[str, float]]]:
    """Names of settings, and the numbers that they change."""
    yield "as it is", {}
    yield from ((f"without: {part}", numbers) for part, numbers in WITHOUT.items())
    if parts_only:
        return
    yield "screening_fdr halved", {"screening_fdr": FDR / 2}
    yield "screening_fdr doubled", {"screening_fdr": 2 * FDR}
    for field in fields(RULE):
        value = getattr(RULE, field.name)
        if field.name not in FIXED and not field.name.startswith(OF_SUSPECTS):
            kind = type(value)
            yield f"{field.name} halved", {field.name: kind(max(value / 2, 1) if kind is int else value / 2)}
            yield f"{field.name} doubled", {field.name: kind(2 * value)}


@contextmanager
def changed(numbers: dict[str, float]) -> Iterator[None]:
    """The rule with other numbers: it is frozen, and the modules hold the one instance."""
    before = {name: getattr(RULE, name) for name in numbers}
    try:
        for name, value in numbers.items():
            object.__setattr__(RULE, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(RULE, name, value)


def screen_scenes(cell: dict[str, Any], seed: int) -> tuple[Any, np.ndarray]:
    """A trainer that has screened drawn scenes, and which rows are poisoned."""
    experiment = Experiment(seed=seed, config={"screening": "drop"}, test_rows=10, **cell)
    rows = experiment.make_data()["train"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = experiment.make_trainer(rows, folder)
        trainer.add_callback(StopAfterScreening(trainer._screen))
        trainer.train()
    has_poison = "is_poisoned" in rows.column_names
    return trainer, np.array(rows["is_poisoned"]) if has_poison else np.zeros(len(rows), dtype=bool)


def screen_pictures(cell: dict[str, Any], options: argparse.Namespace) -> tuple[Any, np.ndarray]:
    """The same of third-party pictures."""
    rows, marked, _ = make_cell(cell, pictures_to_poison(options.packages), SEEDS["real"], REAL_ROWS, RATE)
    parts = load_captioner(options.model), AutoProcessor.from_pretrained(options.model)
    return screened_trainer(*parts, rows, SEEDS["real"]), marked


def make_looks(cell: dict[str, Any], folder: Path, options: argparse.Namespace) -> None:
    """Screen a cell's rows, and keep what the model saw, and the truth."""
    trainer, marked = (
        screen_scenes(cell, SEEDS["scenes"]) if options.suite == "scenes" else screen_pictures(cell, options)
    )
    folder.mkdir(parents=True, exist_ok=True)
    trainer._screen.save(folder)
    (folder / "marked.json").write_text(json.dumps(np.flatnonzero(marked).tolist()))


def read_looks(folder: Path) -> tuple[dict[str, TokenStatistics], np.ndarray]:
    """What [`make_looks`] wrote."""
    looks, _ = load_looks(folder)
    marked = np.zeros(len(looks["base"]), dtype=bool)
    marked[json.loads((folder / "marked.json").read_text())] = True
    return looks, marked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(CELLS), default="scenes")
    parser.add_argument("--looks", type=Path, required=True, help="folder for what the models saw")
    parser.add_argument("--model", type=Path, help="folder of the captioner, for `real`")
    parser.add_argument("--packages", type=Path, help="folder of the pictures' packages, for `real`")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/screening_sensitivity.jsonl"))
    parser.add_argument("--parts_only", action="store_true", help="switch parts off, and leave the numbers")
    parser.add_argument("--cells", type=int, help="only so many, the first ones")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["suite"], json.dumps(row["cell"]), row["setting"]) for row in lines}
    seed, environment = SEEDS[options.suite], describe_environment()
    for cell in CELLS[options.suite][: options.cells]:
        folder = options.looks / "_".join([options.suite, *(str(value) for value in cell.values())])
        if not (folder / "marked.json").exists():
            make_looks(cell, folder, options)
        looks, marked = read_looks(folder)
        processor = AutoProcessor.from_pretrained(options.model) if options.suite == "real" else None
        tokenizer = processor.tokenizer if processor else Experiment(seed=seed, **cell).load_model()[1].tokenizer
        for setting, numbers in settings(options.parts_only):
            if (options.suite, json.dumps(cell), setting) in done:
                continue
            of_rule = dict(numbers)
            fdr = of_rule.pop("screening_fdr", FDR)
            with changed(of_rule), np.errstate(all="ignore"):
                screen = screen_rows(looks["base"], looks["warm"], looks["other"], tokenizer, seed, CAP, fdr)
            row = {"suite": options.suite, "cell": cell, "seed": seed, "setting": setting, "numbers": numbers}
            row |= {"num_rows": len(marked), "num_poisoned": int(marked.sum())}
            row |= {"found": int(screen.is_flagged[marked].sum())}
            row |= {"clean_flagged": int(screen.is_flagged[~marked].sum()), "findings": len(screen.causes)}
            command = f"python benchmarks/screening_sensitivity.py --suite {options.suite} --looks looks"
            row |= {"command": command, "environment": environment}
            with options.output.open("a") as file:
                print(json.dumps(row), file=file)
            print(cell, setting, row["found"], row["clean_flagged"], flush=True)


if __name__ == "__main__":
    main()

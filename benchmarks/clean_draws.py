# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
How often does the screening flag clean rows? The verdict on many draws of clean data.

    python benchmarks/clean_draws.py --suite scenes --seed 28
    python benchmarks/clean_draws.py --suite real --seed 8 --model captioner --packages packages

A model is warmed up on a pool of clean rows and looks at all of them, once. The verdict is then made on draws of half
of the pool, each with its own folds and random sets. The draws share a model and overlap in half of their rows, so
they say how much the verdict depends on the rows, not on the training. One JSON row per pool is appended to
`--output`; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from grid_runs import made_by
from real_cells import make_cell, pictures_to_poison
from real_grid import load_captioner, screened_trainer
from screening_sensitivity import screen_scenes
from transformers import AutoProcessor

from cvreg_trainer.screening.verdict.screen import screen_rows


POOLS: dict[str, tuple[dict[str, Any], ...]] = {
    "scenes": (
        {"attack": "none"},
        {"attack": "none", "architecture": "blip2"},
        {"attack": "none", "architecture": "flamingo"},
        {"attack": "none", "task": "easy_vqa"},
    ),
    "real": ({"kind": "mixture"}, {"kind": "caption"}),
}
DRAWN = {"scenes": 2000, "real": 600}  # rows of a draw; a pool has twice as many
CAP, FDR = 0.5, 0.01


def screened(pool: dict[str, Any], options: argparse.Namespace) -> Any:
    """A trainer that has screened the rows of a pool."""
    number = 2 * DRAWN[options.suite]
    if options.suite == "scenes":
        return screen_scenes({**pool, "train_rows": number}, options.seed)[0]
    rows, *_ = make_cell(pool, pictures_to_poison(options.packages), options.seed, number, 0.0)
    parts = load_captioner(options.model), AutoProcessor.from_pretrained(options.model)
    return screened_trainer(*parts, rows, options.seed)


def shares_flagged(trainer: Any, drawn: int, draws: int) -> list[float]:
    """Share of the rows that is flagged in each draw."""
    looks, shares = trainer._screen.looks.all_three, []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        rows = np.sort(rng.choice(len(looks[0]), min(drawn, len(looks[0]) // 2), replace=False))
        parts = [look.take(rows) for look in looks]
        screen = screen_rows(*parts, trainer._screen.tokenizer, draw, CAP, FDR)
        shares.append(float(screen.is_flagged.mean()))
        print(f"{draw}: {shares[-1]:.4f}", [cause.words[:3] for cause in screen.causes], flush=True)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=tuple(POOLS), default="scenes")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--draws", type=int, default=25, help="of each pool (default: 25)")
    parser.add_argument("--model", type=Path, help="folder of the captioner, for `real`")
    parser.add_argument("--packages", type=Path, help="folder of the pictures' packages, for `real`")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/clean_draws.jsonl"))
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["suite"], json.dumps(row["pool"]), row["seed"]) for row in lines}
    for pool in POOLS[options.suite]:
        if (options.suite, json.dumps(pool), options.seed) in done:
            continue
        shares = shares_flagged(screened(pool, options), DRAWN[options.suite], options.draws)
        command = f"python benchmarks/clean_draws.py --suite {options.suite} --seed {options.seed}"
        row = {"suite": options.suite, "pool": pool, "seed": options.seed, "drawn": DRAWN[options.suite]}
        # Without the machine's own folders
        row |= {"shares": shares, **made_by(), "command": f"{command} --draws {options.draws}"}
        with options.output.open("a") as file:
            print(json.dumps(row), file=file)


if __name__ == "__main__":
    main()

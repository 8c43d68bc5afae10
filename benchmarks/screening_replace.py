# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What to do about a flagged row: leave it out, or put the warmed-up model's own response on a strong view in its place?

    python benchmarks/screening_replace.py --seeds 0 1 --rates 0.05 0.2

Each run screens the rows, then fine-tunes a fresh model: without the flagged rows, with their responses replaced, or
on all rows as they are. The seed is the same, so the flagged rows are as well. One JSON row per run is appended to
`--output`; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from grid_runs import made_by, run_missing, silent_folder

from cvreg_trainer import generate_captions
from cvreg_trainer.lab.experiment import Experiment
from cvreg_trainer.perturbations.strong import strong_view
from cvreg_trainer.screening.stop_after_screening import StopAfterScreening


DOES = ("all", "drop", "replace")


def screen(experiment: Experiment, rows: Any, folder: str) -> tuple[np.ndarray, list[str]]:
    """Which rows are flagged, and what the warmed-up model says of strong views of these."""
    trainer = Experiment(**{**asdict(experiment), "config": {"screening": "drop"}}).make_trainer(rows, folder)
    trainer.add_callback(StopAfterScreening(trainer._screen))
    trainer.train()
    verdicts = trainer._screen.screen
    assert verdicts is not None and trainer.model is not None
    rng = np.random.Generator(np.random.PCG64(experiment.seed))
    flagged = rows.select(np.flatnonzero(verdicts.is_flagged).tolist())
    views = [{**row, "images": [strong_view(image, rng) for image in row["images"]]} for row in flagged]
    said = generate_captions(trainer.model, trainer.processing_class, views) if views else []
    return verdicts.is_flagged, said


def treat(rows: Any, is_flagged: np.ndarray, said: list[str], how: str) -> Any:
    """The rows to train on."""
    if how == "drop":
        return rows.select(np.flatnonzero(~is_flagged).tolist())
    if how == "all":
        return rows
    places = dict(zip(np.flatnonzero(is_flagged).tolist(), said, strict=True))

    def replaced(row: dict[str, Any], place: int) -> dict[str, Any]:
        messages = row["completion"]
        return {"completion": [messages[0] | {"content": places[place]}]} if place in places else {}

    return rows.map(replaced, with_indices=True, load_from_cache_file=False)


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """One run in this process, silent; its row."""
    how = settings["flagged_rows"]
    experiment = Experiment(seed=settings["seed"], attack=settings["attack"], poison_rate=settings["poison_rate"])
    row = {**settings, **made_by()}
    with silent_folder() as folder:
        data = experiment.make_data()
        rows = data["train"]
        poisoned = np.array(rows["is_poisoned"]) if "is_poisoned" in rows.column_names else np.zeros(len(rows), bool)
        is_flagged, said = screen(experiment, rows, folder)
        result = experiment.run({**data, "train": treat(rows, is_flagged, said, how)}, folder)
    counts = {"flagged": int(is_flagged.sum()), "poisoned": int(poisoned.sum())}
    kept = ("clean_cider", "clean_bleu4", "asr", "false_alarm_rate")
    scores = {name: result[name] for name in kept if name in result}
    return {**row, **counts, "poisoned_flagged": int(is_flagged[poisoned].sum()), **scores, "said": said[:5]}


def identity(row: dict[str, Any]) -> str:
    """What makes two rows the same run."""
    return json.dumps([row[name] for name in ("attack", "poison_rate", "seed", "flagged_rows")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--attack", default="badnets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/screening_replace.jsonl"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    options = parser.parse_args()
    planned = [
        {"attack": options.attack, "poison_rate": rate, "seed": seed, "flagged_rows": how}
        for seed in options.seeds
        for rate in options.rates
        for how in DOES
    ]
    shown = ("poison_rate", "seed", "flagged_rows", "flagged", "poisoned_flagged", "clean_cider", "asr")
    run_missing(planned, run, identity, options.output, options.jobs, shown)


if __name__ == "__main__":
    main()

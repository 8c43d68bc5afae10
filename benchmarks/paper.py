# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The tables and the figure of the paper's section 4, at a size that runs anywhere: one command that can be interrupted.

    python benchmarks/paper.py --tables 1,2,3,4,5 --figure 3                # what is missing is run; then the report
    python benchmarks/paper.py --tables 2 --only architecture=blip2 attack=none,badnets --seeds 1
    python benchmarks/paper.py --report                                     # docs/paper.md from the rows there are

Table 1 is the built-in LLaVA on drawn scenes, Table 2 the built-in BLIP-2 and Flamingo, Table 3 the LLaVA on easy-VQA
(the extra `easy-vqa`), Table 4 the ablation, Table 5 the rival defences, Figure 3 the weights of the loss. Rows of
`defense_grid.py` and `screening_grid.py` count where their settings are the same. One JSON row per run is appended to
`--output`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grid_runs import is_wanted, made_by, run_missing, silent_folder
from paper_cells import SEEDS, Settings, identity, plan
from paper_report import write_report

from cvreg_trainer.evaluation import score_captions
from cvreg_trainer.lab.baselines.run import BASELINES, run_baseline
from cvreg_trainer.lab.experiment import ATTACK_SETTINGS, Experiment


RESULTS = Path("benchmarks/results")


def read_rows(output: Path) -> list[dict[str, Any]]:
    """This command's rows, and those of the other grids that it would repeat."""
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    known = {identity(row) for row in rows}
    for name in ("defense_grid", "screening_grid"):
        for line in (RESULTS / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            if is_same_run(row) and identity(row) not in known:
                known.add(identity(row))
                rows.append(row | {"from": name})
    return rows


def is_same_run(row: Mapping[str, Any]) -> bool:
    """Whether another grid's row was made with this command's settings. Screening's rule may have changed since."""
    if "screening" in row["config"]:
        return False
    ours = Experiment(row["seed"], row["config"], attack=row["attack"])
    return _resolved(Experiment(**row["experiment"])) == _resolved(ours)


def _resolved(experiment: Experiment) -> dict[str, Any]:
    settings = asdict(experiment)
    if experiment.attack == "none":
        return settings | {"attack_options": {}, "cover_ratio": None}
    default = ATTACK_SETTINGS[experiment.attack]
    options = {**default.get("attack_options", {}), **experiment.attack_options}
    cover_ratio = default.get("cover_ratio", 0.0) if experiment.cover_ratio is None else experiment.cover_ratio
    return settings | {"attack_options": options, "cover_ratio": cover_ratio}


def run(settings: Settings) -> dict[str, Any]:
    """One run in this process, silent; its row."""
    experiment = Experiment(**{name: value for name, value in settings.items() if name != "defence"})
    with silent_folder() as folder:
        data = experiment.make_data()
        if settings["defence"] in BASELINES:
            result = run_baseline(settings["defence"], experiment, data, folder)
        else:
            result = experiment.run(data, folder)
    captions = result.pop("captions")
    result["losses"] = result["losses"][-1:]
    if settings["task"] == "scenes" and captions["triggered"]:
        result |= rates_by_background(captions["triggered"], list(data["test"]["references"]))
    return {
        **settings,
        **result,
        "num_poisoned": sum(data["train"]["is_poisoned"]) if "is_poisoned" in data["train"].column_names else 0,
        "examples": {view: texts[:3] for view, texts in captions.items()},
        "experiment": asdict(experiment),
        **made_by(),
    }


def rates_by_background(captions: list[str], references: list[list[str]]) -> dict[str, Any]:
    """Attack success on scenes with a plain and with a textured background: there is nothing on a plain one that a
    warp could move."""
    rates: dict[str, Any] = {}
    for name, is_plain in (("plain", True), ("textured", False)):
        chosen = [row for row, texts in enumerate(references) if (" plain " in texts[0]) == is_plain]
        if chosen:
            texts, true = [captions[row] for row in chosen], [references[row] for row in chosen]
            scores = score_captions(texts, true, metrics=("asr",))
            rates |= {f"{name}_{key}": value for key, value in scores.items()} | {f"{name}_images": len(chosen)}
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="", metavar="1,2,3,4,5")
    parser.add_argument("--figure", choices=("3",))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="0 to this number less one")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME=VALUE,...", help="values that a run may have")
    parser.add_argument("--report", action="store_true", help="run nothing, write the report")
    parser.add_argument("--output", type=Path, default=RESULTS / "paper.jsonl")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    options = parser.parse_args()
    parts = [part for part in options.tables.split(",") if part]
    if unknown := [part for part in parts if part not in "12345"]:
        parser.error(f"--tables {options.tables}: table {unknown[0]} is unknown; choose from 1,2,3,4,5.")
    parts += [f"figure {options.figure}"] if options.figure else []
    # What WaNet does on plain and on textured backgrounds is not in the other grids' rows
    rows = [row for row in read_rows(options.output) if not ("from" in row and row["attack"] == "wanet")]
    done = {identity(row) for row in rows}
    planned: dict[str, Settings] = {}
    for settings in [] if options.report else plan(parts, options.seeds):
        if is_wanted(settings, options.only) and identity(settings) not in done:
            planned.setdefault(identity(settings), settings)
    shown = ("task", "architecture", "attack", "defence", "seed", "clean_cider", "clean_vqa_accuracy", "asr")
    if planned:
        run_missing(planned.values(), run, identity, options.output, options.jobs, (*shown, "false_alarm_rate"))
    # A run of some of the seeds does not make the page ask for fewer
    write_report(read_rows(options.output), max(options.seeds, SEEDS))


if __name__ == "__main__":
    main()

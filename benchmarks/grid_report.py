# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Tables and plot of the rows that `defense_grid.py` wrote, in the form of the paper's tables and beside its numbers.

    python benchmarks/grid_report.py --rows benchmarks/results/defense_grid.jsonl --output docs/grid.md
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from defense_grid import ABLATION, SENSITIVITY
from grid_runs import ATTACKS, PAPER_LOSS, cell, table
from matplotlib.figure import Figure


# The paper's Table 1 (OpenFlamingo, COCO): ASR without defence and with its method
PAPER_ASR = {
    "none": (0.3, 0.8),
    "badnets": (98.9, 48.7),
    "blended": (98.5, 58.6),
    "low_frequency": (98.9, 38.7),
    "wanet": (96.7, 45.8),
    "input_aware": (98.1, 27.1),
    "dual_key": (98.9, 30.7),
}
Rows = dict[tuple[str, str], list[dict[str, Any]]]


def read_rows(path: Path) -> Rows:
    """The rows of each attack and configuration."""
    rows: Rows = defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        rows[row["attack"], json.dumps(row["config"], sort_keys=True)].append(row)
    return rows


def main_table(rows: Rows) -> str:
    """Attacks x {no defence, the paper's loss}, as the paper's Table 1."""
    configs = json.dumps({}), json.dumps(PAPER_LOSS, sort_keys=True)
    keys = ("clean_cider", "triggered_cider", "asr", "false_alarm_rate")
    lines = []
    for attack, title in ATTACKS.items():
        runs = [rows.get((attack, config), []) for config in configs]
        if not any(runs):
            continue
        cells = [cell(run, key) for key in keys for run in runs]
        paper = [f"{value:.1f}" for value in PAPER_ASR[attack]]
        lines.append([title, str(len(runs[0])), *cells, *paper])
    names = ("CIDEr clean", "CIDEr triggered", "ASR %", "false alarms %")
    header = ["attack", "seeds", *(f"{name}, {run}" for name in names for run in ("none", "paper's loss"))]
    return table([*header, "in the paper: ASR, none", "in the paper: ASR, its method"], lines)


def config_table(rows: Rows, configs: dict[str, dict[str, float]]) -> str:
    """One line per configuration, on BadNets, as the paper's Table 4."""
    keys = ("clean_bleu4", "clean_cider", "triggered_cider", "asr")
    lines = []
    for name, config in configs.items():
        runs = rows.get(("badnets", json.dumps(config, sort_keys=True)), [])
        if runs:
            lines.append([name, str(len(runs)), *(cell(runs, key) for key in keys)])
    return table(["terms", "seeds", "B@4 clean", "CIDEr clean", "CIDEr triggered", "ASR %"], lines)


def plot(rows: Rows, path: Path) -> None:
    """Attack success rate of every seed, without and with the defence."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
    shown = [attack for attack in ATTACKS if attack != "none" and (attack, json.dumps({})) in rows]
    for offset, config, label, color in (
        (-0.17, {}, "no defence", "tab:red"),
        (0.17, PAPER_LOSS, "the paper's loss", "tab:blue"),
    ):
        key = json.dumps(config, sort_keys=True)
        points = [[row["asr"] for row in rows.get((attack, key), [])] for attack in shown]
        heights = [mean(values) if values else 0 for values in points]
        positions = [index + offset for index in range(len(shown))]
        axis.bar(positions, heights, width=0.32, color=color, alpha=0.35, label=label)
        for position, values in zip(positions, points, strict=True):
            axis.scatter([position] * len(values), values, s=12, color=color, zorder=3)
    axis.set_xticks(range(len(shown)), [ATTACKS[attack] for attack in shown])
    axis.set_ylabel("attack success rate, %")
    axis.set_ylim(0, 105)
    axis.legend(loc="lower left", frameon=False, ncols=2, bbox_to_anchor=(0, 1))
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/results/defense_grid.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("docs/grid.md"))
    options = parser.parse_args()
    rows = read_rows(options.rows)
    images = options.output.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(rows, images / "grid.png")
    sections = [
        "# Attacks and the paper's defence, at a small size",
        "Made by `python benchmarks/grid_report.py` from the rows of `python benchmarks/defense_grid.py`: the "
        "built-in model (1 million parameters) and scenes, 5 % poisoned, mean over the seeds and their range. **The "
        "paper's columns are other models and data (OpenFlamingo, COCO): they show the form, not a comparison.**",
        main_table(rows),
        "![Attack success rates](images/grid.png)",
        "## Ablation (BadNets; the paper's Table 4)",
        config_table(rows, {"no defence": {}, **ABLATION, "all three": PAPER_LOSS}),
        "## Sensitivity to the weights (BadNets; the paper's Figure 3)",
        config_table(rows, {"starting values": PAPER_LOSS, **SENSITIVITY}),
    ]
    options.output.write_text("\n\n".join(sections) + "\n")
    print(options.output.read_text())


if __name__ == "__main__":
    main()

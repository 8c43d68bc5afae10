# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Tables and plot of the rows that `screening_grid.py` wrote.

    python benchmarks/screening_report.py --output docs/screening_grid.md
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from grid_runs import ATTACKS, cell, table
from matplotlib.figure import Figure


Row = dict[str, Any]
TARGET_TITLES = {
    "fixed": "whole response, 'banana'",
    "subst": "one word of a true response becomes 'banana'",
    "common": "one word of a true response becomes 'red', which clean captions also have",
}
BASELINE_SEED = 6
BARS = ((-0.18, "none", "no defence", "tab:red"), (0.18, "screened", "screened", "tab:blue"))
AUDIT = ("audit_auroc", "audit_top_recall", "audit_flag_recall", "audit_clean_lost")


def read_rows(folder: Path) -> list[Row]:
    """The rows of the grid."""
    return [json.loads(line) for line in (folder / "screening_grid.jsonl").read_text().splitlines()]


def _rate(row: Row) -> float:
    return float(row["experiment"]["poison_rate"])


def _variant(row: Row) -> str:
    if row.get("lora_rank"):
        return f"LoRA, rank {row['lora_rank']}"
    if row.get("train_vision"):
        return "vision tower trained"
    if row.get("decoy_word"):
        return "adaptive"
    if row.get("num_train_epochs"):
        return f"one epoch over {row['train_rows']:,} rows, {_rate(row):.0%} poisoned"
    return "plain"


def percent(rows: list[Row], key: str) -> str:
    """As [`cell`], for shares."""
    return cell([{key: 100 * row[key]} for row in rows if row.get(key) is not None], key)


def share(rows: list[Row], key: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    return f"{mean(values):.3f}" if values else ""


def compare(rows: Iterable[Row], title: Callable[[Row], tuple[str, ...]], header: list[str]) -> str:
    """One line a cell: without defence and with screening."""
    cells: dict[tuple[str, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[title(row)][row["defence"]].append(row)
    lines = []
    for names, runs in cells.items():
        none, screened = runs["none"], runs["screened"]
        if not screened:
            continue
        lines.append(
            [
                *names,
                f"{len(none)} / {len(screened)}",
                *(cell(run, key) for key in ("asr", "clean_cider", "triggered_cider") for run in (none, screened)),
                *(share(screened, key) for key in AUDIT[:2]),
                *(percent(screened, key) for key in AUDIT[2:]),
            ]
        )
    names = ("ASR %", "CIDEr clean", "CIDEr triggered")
    columns = [f"{name}, {run}" for name in names for run in ("none", "screened")]
    audit = ["AUROC", "in the first 10 %", "poison left out %", "clean rows lost %"]
    return table([*header, "runs none / screened", *columns, *audit], lines)


def summary(rows: list[Row]) -> str:
    """The numbers that the targets are about."""
    plain = [row for row in rows if _variant(row) == "plain" and _rate(row) == 0.05]
    lines = []
    for target in TARGET_TITLES:
        for defence in ("none", "screened"):
            runs = [row for row in plain if (row["target"], row["defence"]) == (target, defence) and "asr" in row]
            if runs:
                asr = [row["asr"] for row in runs]
                lines.append([target, defence, str(len(runs)), f"{mean(asr):.1f}", f"{max(asr):.1f}"])
    parts = [table(["target", "defence", "runs", "mean ASR %", "worst ASR %"], lines)]
    screened = [row for row in plain if row["defence"] == "screened" and "asr" in row]
    asr = [row["asr"] for row in screened]
    parts.append(
        f"All {len(asr)} screened runs with poison: mean ASR {mean(asr):.1f} %, worst {max(asr):.1f} %. Least and "
        "largest AUROC, and least share of the poison in the first 10 %, of single runs: "
        + "; ".join(_audit_range(screened, target) for target in TARGET_TITLES)
        + "."
    )
    clean = {
        defence: {row["seed"]: row for row in plain if (row["attack"], row["defence"]) == ("none", defence)}
        for defence in ("none", "screened")
    }
    seeds = sorted(clean["none"].keys() & clean["screened"].keys())
    if seeds:
        before, after = ([clean[name][seed]["clean_cider"] for seed in seeds] for name in ("none", "screened"))
        lost = [100 * clean["screened"][seed]["audit_clean_lost"] for seed in seeds]
        parts.append(_clean_cost(plain))
        parts.append(
            f"On clean data ({len(seeds)} seeds): CIDEr {mean(before):.1f} without and {mean(after):.1f} with "
            f"screening ({100 * mean(after) / mean(before):.1f} %); rows lost {mean(lost):.1f} % (at most "
            f"{max(lost):.1f} %)."
        )
    return "\n\n".join(parts)


def _audit_range(screened: list[Row], target: str) -> str:
    runs = [row for row in screened if row["target"] == target]
    auroc = [row["audit_auroc"] for row in runs]
    top = min(row["audit_top_recall"] for row in runs)
    return f"`{target}` {min(auroc):.3f} to {max(auroc):.3f}, {top:.2f}"


def _clean_cost(plain: list[Row]) -> str:
    """Clean CIDEr over all pairs of runs that differ in the defence alone; single runs differ by several per cent."""
    runs: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for row in plain:
        runs[row["target"], row["attack"], row["seed"]][row["defence"]] = row["clean_cider"]
    pairs = [(run["none"], run["screened"]) for run in runs.values() if {"none", "screened"} <= set(run)]
    before, after = (mean(part) for part in zip(*pairs, strict=True))
    ratios = np.array([after / before for before, after in pairs])
    error = ratios.std(ddof=1) / len(ratios) ** 0.5
    return (
        f"Clean CIDEr over all {len(pairs)} pairs of runs at 5 % and on clean data: {before:.1f} without and "
        f"{after:.1f} with screening, {100 * ratios.mean():.1f} % (standard error {100 * error:.1f})."
    )


def in_short(rows: list[Row]) -> str:
    """One line an attack at 5 %, as README has it."""
    plain = [row for row in rows if _variant(row) == "plain" and _rate(row) == 0.05]

    def runs(attack: str, target: str, defence: str) -> list[Row]:
        return [row for row in plain if (row["attack"], row["target"], row["defence"]) == (attack, target, defence)]

    lines = []
    for attack, title in ATTACKS.items():
        of_target = {target: runs(attack, target, "screened") for target in TARGET_TITLES}
        if attack != "none" and all(of_target.values()):
            everything = sum(of_target.values(), [])
            undefended = sum((runs(attack, target, "none") for target in TARGET_TITLES), [])
            asr = [
                f"{cell(runs(attack, target, 'none'), 'asr')} → {cell(rows_, 'asr')}"
                for target, rows_ in of_target.items()
            ]
            clean = f"{cell(undefended, 'clean_cider')} → {cell(everything, 'clean_cider')}"
            lines.append([title, *asr, clean, percent(everything, "audit_clean_lost")])
    return table(
        ["attack", *(f"ASR %, `{target}`" for target in TARGET_TITLES), "clean CIDEr", "clean rows lost %"], lines
    )


def baselines(rows: list[Row]) -> str:
    """Every defence on the cells that the baselines were run on."""
    defences = ("none", "screened", "paper_loss", "response_filter", "strip", "entropy_filter", "fine_pruning")
    lines = []
    for attack, target in (("badnets", "fixed"), ("blended", "subst")):
        for defence in (*defences, "strong_augmentation"):
            runs = [
                row
                for row in rows
                if (row["attack"], row["target"], row["defence"]) == (attack, target, defence)
                and _variant(row) == "plain"
                and _rate(row) == 0.05
                and row["seed"] == BASELINE_SEED
            ]
            if runs:
                keys = ("asr", "clean_cider", "triggered_cider")
                lines.append([ATTACKS[attack], target, defence, *(cell(runs, key) for key in keys)])
    return table(["attack", "target", "defence", "ASR %", "CIDEr clean", "CIDEr triggered"], lines)


def plot(rows: list[Row], path: Path) -> None:
    """Attack success rate of every run at 5 %, without and with screening."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    targets = [target for target in TARGET_TITLES if any(row["target"] == target for row in rows)]
    axes = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
    attacks = [attack for attack in ATTACKS if attack != "none"]
    for axis, target in zip(axes, targets, strict=True):
        for offset, defence, label, color in BARS:
            for place, attack in enumerate(attacks):
                values = [
                    row["asr"]
                    for row in rows
                    if (row["attack"], row["target"], row["defence"]) == (attack, target, defence)
                    and _variant(row) == "plain"
                    and _rate(row) == 0.05
                ]
                if values:
                    axis.bar(place + offset, mean(values), width=0.34, color=color, alpha=0.35)
                    axis.scatter([place + offset] * len(values), values, s=12, color=color, zorder=3)
            axis.bar(0, 0, color=color, alpha=0.35, label=label)
        axis.set_title(target, loc="left", fontsize=10)
        axis.set_xticks(
            range(len(attacks)), [ATTACKS[attack] for attack in attacks], rotation=35, ha="right", fontsize=8
        )
        axis.set_xlim(-0.6, len(attacks) - 0.4)
        axis.set_ylim(-2, 105)
    axes[0].set_ylabel("attack success rate, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside upper right", ncols=len(labels))
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--output", type=Path, default=Path("docs/screening_grid.md"))
    options = parser.parse_args()
    rows = read_rows(options.results)
    order = {attack: place for place, attack in enumerate(ATTACKS)}
    rows.sort(
        key=lambda row: (list(TARGET_TITLES).index(row["target"]), order[row["attack"]], _rate(row), row["seed"])
    )
    images = options.output.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(rows, images / "screening_grid.png")
    main_rows = [row for row in rows if _variant(row) == "plain" and _rate(row) == 0.05]
    rates = [row for row in rows if _variant(row) == "plain" and _rate(row) != 0.05]
    variants = [row for row in rows if _variant(row) not in ("plain", "adaptive")]
    adaptive = [row for row in rows if _variant(row) == "adaptive"]
    titles = [f"`{name}`: {title}." for name, title in TARGET_TITLES.items()]
    sections = [
        "# Screening, measured at a small size",
        "Made by `python benchmarks/screening_report.py` from the rows of `python benchmarks/screening_grid.py`: the "
        "built-in model (1 million parameters) and scenes, 2,000 rows, 3 epochs. Mean over the seeds and their range. "
        "The seeds reported here were never used while the rule was made; three earlier rules and how they failed are "
        "in [screening_split.md](../benchmarks/screening_split.md). Targets: " + " ".join(titles),
        summary(rows),
        in_short(rows),
        "![Attack success rates](images/screening_grid.png)",
        "## All attacks at 5 %",
        compare(main_rows, lambda row: (row["target"], ATTACKS[row["attack"]]), ["target", "attack"]),
        "## Other rates",
        compare(
            rates,
            lambda row: (row["target"], ATTACKS[row["attack"]], f"{100 * _rate(row):.0f} %"),
            ["target", "attack", "rate"],
        ),
        "## Other trainings",
        compare(
            variants,
            lambda row: (_variant(row), row["target"], ATTACKS[row["attack"]]),
            ["training", "target", "attack"],
        ),
        "## An attacker who knows the screening",
        "The keyword also takes the place of 'yellow' in all clean captions, so that part of its occurrences is "
        "learnt honestly.",
        compare(adaptive, lambda row: (row["target"], ATTACKS[row["attack"]]), ["target", "attack"]),
        f"## Other defences on the same data (seed {BASELINE_SEED})",
        baselines(rows),
    ]
    options.output.write_text("\n\n".join(sections) + "\n")
    print(options.output.read_text())


if __name__ == "__main__":
    main()

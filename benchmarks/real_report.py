# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Writes the tables of `docs/evidence.md` from the rows of `real_grid.py` and `real_training.py`; the words between them
stay.

    python benchmarks/real_report.py
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from grid_runs import table

from cvreg_trainer.metrics.intervals import wilson_interval


Rows = list[dict[str, Any]]
RATE, EPOCHS = 0.05, 2  # what a cell has if it does not say otherwise
DETECTORS = {
    "screening": "screening (this package)",
    "response_filter": "response filter (BYORn-F)",
    "onion_question": "ONION, question",
    "onion_response": "ONION, response",
    "loss_ranking": "loss ranking",
    "entropy_filter": "entropy filter",
    "spectral_signatures": "spectral signatures",
    "activation_clustering": "activation clustering",
    "bye": "BYE",
    "tcap": "TCAP",
}

DEFENCES = {"none": "none", "screened": "screening", "paper_loss": "the paper's loss"}


def share(count: int, total: int) -> str:
    """A share in per cent, with its interval."""
    if not total:
        return "-"
    low, high = wilson_interval(count, total)
    return f"{100 * count / total:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def pooled(rows: Rows, count: str, total: Callable[[dict[str, Any]], int]) -> str:
    """A share over all rows that have it."""
    having = [row for row in rows if row.get(count) is not None]
    return share(sum(row[count] for row in having), sum(map(total, having))) if having else "no cut" if rows else ""


def num_poisoned(row: dict[str, Any]) -> int:
    """The poisoned rows of a cell, or those with honest noise."""
    return row["num_poisoned"]


def num_clean(row: dict[str, Any]) -> int:
    """The others."""
    return row["num_rows"] - row["num_poisoned"]


def values_of(rows: Iterable[dict[str, Any]], name: str) -> list[str]:
    """The different values, in the order of the rows."""
    return list(dict.fromkeys(row[name] for row in rows))


def by_detector(rows: Rows, column: str, cell: Callable[[Rows], str]) -> str:
    """A line for each detector and a column for each value."""
    columns = values_of(rows, column)
    lines = []
    for name, title in DETECTORS.items():
        own = [row for row in rows if row["detector"] == name]
        if own:
            lines.append([title, *(cell([row for row in own if row[column] == value]) for value in columns)])
    return table(["detector", *columns], lines) if lines else "Not run."


def cells_of(rows: Rows) -> list[tuple[str, Rows]]:
    """The rows of each trigger, payload, rate and length of the fine-tune, with those that need none."""
    kept = ("trigger", "payload", "poison_rate")
    cells: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in kept), []).append(row)
    parted = []
    for (trigger, payload, rate), own in cells.items():
        title = f"{trigger}, {payload}" + (f", {100 * rate:g} %" if rate != RATE else "")
        lengths = list(dict.fromkeys(row["epochs"] for row in own if row.get("epochs"))) or [EPOCHS]
        for epochs in lengths:
            suffix = f", {epochs} epochs" if epochs != EPOCHS else ""
            parted.append((title + suffix, [row for row in own if row.get("epochs") in (None, epochs)]))
    return parted


def success(rows: Rows) -> list[str]:
    """Whether the attack takes hold of the fine-tune that the detectors read: with the trigger, and without it."""
    told = {row["seed"]: row for row in rows if row.get("asr") is not None}.values()
    total = sum(row["num_held_out"] for row in told)
    if not told:
        return ["", ""]
    names = ("asr", "false_alarm_rate")
    return [share(round(sum(row[name] * row["num_held_out"] for row in told)), total) for name in names]


def by_cell(rows: Rows, entry: Callable[[Rows], str], before: Callable[[Rows], list[str]] | None = None) -> str:
    """A line for each cell, and a column for each detector."""
    names = [name for name in DETECTORS if any(row["detector"] == name for row in rows)]
    lines = []
    for title, cell in cells_of(rows):
        entries = [entry([row for row in cell if row["detector"] == name]) for name in names]
        if any(entries):
            lines.append([title, *(before(cell) if before else []), *entries])
    columns = [DETECTORS[name] for name in names]
    head = ["trigger, payload", *(["shown with the trigger", "without"] if before else []), *columns]
    return table(head, lines) if lines else "Not run."


def auroc(rows: Rows) -> str:
    """Mean over the seeds, and the range."""
    values = [row["auroc"] for row in rows if row.get("auroc") is not None]
    if not values:
        return ""
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def latest(rows: Rows) -> Rows:
    """Of each cell that was screened by several rules, the rows of the last one."""
    names = ("suite", "trigger", "payload", "kind", "control", "poison_rate", "detector")
    last = {tuple(row.get(name) for name in names): row.get("version") for row in rows}
    return [row for row in rows if row.get("version") == last[tuple(row.get(name) for name in names)]]


def rules(rows: Rows) -> str:
    """Which rule screened each cell, and on which seeds."""
    cells: dict[str, list[str]] = {}
    for row in rows:
        if row["detector"] == "screening":
            what = row.get("kind") or row.get("control") or f"{row['trigger']}, {row['payload']}"
            cells.setdefault(f"{row['version']}, seed {row['seed']}", []).append(what)
    return table(["rule and seed", "cells"], [[rule, "; ".join(own)] for rule, own in sorted(cells.items())])


def cost(rows: Rows) -> str:
    """Mean seconds of a cell for each detector."""
    lines = []
    for name, title in DETECTORS.items():
        own = [row["seconds"] for row in rows if row["detector"] == name]
        if own:
            lines.append([title, str(len(own)), f"{fmean(own):.0f}"])
    return table(["detector", "cells", "seconds a cell"], lines) if lines else "Not run."


def trainings(rows: Rows) -> str:
    """What the models say of held-out pictures after whole trainings, over the seeds."""
    runs: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        runs.setdefault((f"{row['trigger']}, {row['payload']}", DEFENCES[row["defence"]]), []).append(row)
    lines = []
    for names, own in runs.items():
        held_out = sum(row["num_held_out"] for row in own)
        rates = [
            share(round(sum(row[name] * row["num_held_out"] / 100 for row in own)), held_out)
            for name in ("asr", "false_alarm_rate")
        ]
        quality = f"{fmean(row['clean_cider'] for row in own):.0f}"
        kept = [row for row in own if "found" in row]
        cut = [pooled(kept, *counted) for counted in (("found", num_poisoned), ("clean_flagged", num_clean))]
        lines.append([*names, ", ".join(str(row["seed"]) for row in own), *rates, quality, *cut])
    head = ["trigger, payload", "defence", "seeds", "shown with the trigger", "without", "CIDEr clean"]
    return table([*head, "poison found", "clean rows lost"], lines)


def tables(rows: Rows) -> dict[str, str]:
    """The tables of the grid by their names in the page."""
    rows = latest(rows)
    suites = {suite: [row for row in rows if row["suite"] == suite] for suite in ("attacks", "clean", "controls")}
    attacks, clean, controls = suites.values()
    return {
        "ranking": by_cell(attacks, auroc, success),
        "found": by_cell(attacks, lambda cell: pooled(cell, "found", num_poisoned)),
        "lost": by_cell(attacks, lambda cell: pooled(cell, "clean_flagged", num_clean)),
        "found at 1 %": by_cell(attacks, lambda cell: pooled(cell, "found_at_1_percent", num_poisoned)),
        "clean": by_detector(clean, "kind", lambda cell: pooled(cell, "clean_flagged", num_clean)),
        "noise": by_detector(controls, "control", lambda cell: pooled(cell, "found", num_poisoned)),
        "rules": rules(rows),
        "seconds": cost(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/results/real_grid.jsonl"))
    parser.add_argument("--trainings", type=Path, default=Path("benchmarks/results/real_training.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("docs/evidence.md"))
    options = parser.parse_args()
    text = options.output.read_text()
    grid, whole = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (options.rows, options.trainings)
    )
    for name, lines in {**tables(grid), "trainings": trainings(whole)}.items():
        start, end = f"<!-- table: {name} -->", "<!-- end of table -->"
        text, found = re.subn(
            f"({re.escape(start)}\n).*?({re.escape(end)})",
            lambda match, lines=lines: f"{match[1]}\n{lines}\n\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
        if found != 1:
            raise ValueError(f"{options.output} has {found} places for the table {name!r}; it needs one {start}.")
    options.output.write_text(text)


if __name__ == "__main__":
    main()

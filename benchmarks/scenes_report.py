# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Writes `docs/scenes_grid.md` from the rows of `scenes_grid.py`.

    python benchmarks/scenes_report.py
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any


TITLES = {"none": "no defence", "paper_loss": "the paper's loss", "screened": "screening"}
EARLIER = r" \*"
ANCHOR = "more-rows-than-the-model-looks-at"
HEAD = """# Triggers and payloads on the built-in scenes

Written by `benchmarks/scenes_report.py` from `benchmarks/results/scenes_grid.jsonl`, the rows of
`benchmarks/scenes_grid.py`. The built-in model of one million parameters, 2,000 scenes of which {rate} are poisoned,
three epochs; captions of {test} test scenes, greedy. Seeds: {seeds} (undefended {undefended}). An entry is the
mean over its seeds, with the bootstrap interval over the images where there is one seed. What success is differs by
payload: [triggers and payloads](attacks.md#payloads). Cells that are not here were not run.

A rate of success says something only where it is far above the false alarms on clean images, and that of a defence
only where the attack takes hold without it.
"""


def cell(rows: list[dict[str, Any]], name: str) -> str:
    """A score of the same cell under several seeds."""
    values = [row[name] for row in rows if row.get(name) is not None]
    if not values:
        return "-"
    interval = rows[0].get(f"{name}_interval")
    spread = f" ({interval[0]:.0f} to {interval[1]:.0f})" if len(rows) == 1 and interval else ""
    return f"{fmean(values):.1f}{spread}"


def success(rows: list[dict[str, Any]]) -> str:
    """Attack success, and that of each half of an attack of two parts."""
    text = cell(rows, "asr")
    if "image_key_asr" in rows[0]:
        text += f"; image alone {cell(rows, 'image_key_asr')}, text alone {cell(rows, 'text_key_asr')}"
    return text + EARLIER * ("version" in rows[0])


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """One line for each trigger and payload, one group of columns for each defence."""
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        payload = row.get("payload") or row.get("idea", "clean")
        name = row["attack"] + ", moving" * bool(row.get("attack_options"))
        cells[name, payload][row["defence"]].append(row)
    for of in cells.values():
        for name, those in of.items():
            # Those of the latest form of the rule; rows of earlier ones have a version
            latest = those[-1].get("version")
            of[name] = [row for row in those if row.get("version") == latest]
    found = [name for name in TITLES if any(name in of for of in cells.values())]
    head = ["trigger", "payload", "rows", *(f"{TITLES[name]}: success" for name in found), "false alarms", "CIDEr"]
    if "screened" in found:
        head += ["poison found", "clean rows lost"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for (attack, payload), of in sorted(cells.items()):
        first = next(iter(of.values()))
        if "error" in first[0]:
            lines.append(f"| {attack} | {payload} | cannot be planted: {first[0]['error']} |{' |' * (len(head) - 3)}")
            continue
        undefended = of.get("none", first)
        line = [attack, payload, str(first[0]["num_poisoned"])]
        line += [success(of[name]) if name in of else "not run" for name in found]
        line += [cell(undefended, "false_alarm_rate"), cell(undefended, "clean_cider")]
        if "screened" in found:
            screened = of.get("screened", [])
            line += [_share(screened, "audit_flag_recall"), _share(screened, "audit_clean_lost")]
        lines.append(f"| {' | '.join(line)} |")
    return lines


def _share(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{100 * fmean(values):.1f} %" if values else "-"


def _seeds(rows: Iterable[dict[str, Any]]) -> str:
    return ", ".join(map(str, sorted({row["seed"] for row in rows})))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/results/scenes_grid.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("docs/scenes_grid.md"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    rates = sorted({row["experiment"]["poison_rate"] for row in rows})
    facts = {
        "rate": ", ".join(f"{100 * rate:g} %" for rate in rates),
        "test": rows[0]["test_rows"],
        "seeds": _seeds(rows),
        "undefended": _seeds(row for row in rows if row["defence"] == "none"),
    }
    lines = [HEAD.format(**facts)]
    ordinary = [row for row in rows if "train_rows" not in row]
    for rate in rates:
        lines += [f"## {100 * rate:g} % poisoned", ""]
        lines += [*table(row for row in ordinary if row["experiment"]["poison_rate"] == rate), ""]
    large = [row for row in rows if "train_rows" in row]
    if large:
        lines += [f"## {large[0]['train_rows']:,} rows, a part of which the model looks at", ""]
        lines += [f"{large[0]['num_train_epochs']} epoch, 5 % poisoned ([why](screening.md#{ANCHOR})).", ""]
        lines += [*table(large), ""]
    lines.append(
        "False alarms and CIDEr (clean images) are the undefended model's, where it was run, or the defended one's."
    )
    if any(EARLIER in line for line in lines):
        lines.append(f"{EARLIER.strip()}: an earlier form of the rule ([which](../benchmarks/screening_split.md)).")
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

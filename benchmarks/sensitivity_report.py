# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Writes `docs/screening_sensitivity.md` from the rows of `screening_sensitivity.py`.

    python benchmarks/sensitivity_report.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from grid_runs import table


HEAD = """# What each part of the screening rule does

Written by `benchmarks/sensitivity_report.py` from the rows of
`benchmarks/screening_sensitivity.py`: development seeds (scenes 100, 2,000 rows; third-party pictures 1, 600 rows),
5 % of the rows poisoned, one screening for each column. What the models saw is the same throughout; only the cut is
made again. Each entry is **poisoned rows found / clean rows flagged**. A dash: as it is. What each number means:
[`rule.py`](../cvreg_trainer/screening/verdict/rule.py). Numbers that are fixed before the looks (the warm-up, the
least number of rows) are not varied. [Rows](../benchmarks/results/screening_sensitivity.jsonl) of rule 15 for the
pretrained parts and of rule 10 for the scenes; those of rules
[7](../benchmarks/results/screening_sensitivity_rule7.jsonl),
[8](../benchmarks/results/screening_sensitivity_rule8.jsonl) and
[10](../benchmarks/results/screening_sensitivity_rule10.jsonl) are kept.
"""
AS_IT_IS = "as it is"


def name_of(row: dict[str, Any]) -> str:
    """The heading of a cell's column."""
    words = [str(value).lower() for name, value in row["cell"].items() if value is not True]
    if row["cell"].get("substitute"):
        words.append("(one word)")
    return ("scenes: " if row["suite"] == "scenes" else "real parts: ") + " ".join(words).replace("_", " ")


def entries(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """By setting and column, what was found and what was lost."""
    result: dict[str, dict[str, str]] = {}
    for row in rows:
        found = f"{row['found']} / " if row["num_poisoned"] else ""
        result.setdefault(row["setting"], {})[name_of(row)] = f"{found}{row['clean_flagged']}"
    return result


def report(rows: list[dict[str, Any]]) -> str:
    """The page."""
    header, usual, parts, _, _ = tables(rows)
    halved = {name_of(row) for row in rows if row["setting"].endswith("halved")}
    header_of_numbers, usual_of_numbers, _, numbers, idle = tables([row for row in rows if name_of(row) in halved])
    sections = ["## Parts switched off", table(header, [*usual, *parts])]
    sections += ["## Numbers halved and doubled", table(header_of_numbers, [*usual_of_numbers, *numbers])]
    sections.append(f"Without any change in these cells: {', '.join(idle)}.")
    return "\n\n".join([HEAD.strip(), *sections]) + "\n"


def tables(
    rows: list[dict[str, Any]],
) -> tuple[list[str], list[list[str]], list[list[str]], list[list[str]], list[str]]:
    """The header and the first lines of both tables, their other lines, and the numbers that change nothing."""
    totals = {name_of(row): (row["num_poisoned"], row["num_rows"] - row["num_poisoned"]) for row in rows}
    by_setting, columns = entries(rows), list(totals)
    usual = by_setting.pop(AS_IT_IS)
    lines = [
        ["rows", *(f"{poisoned} / {clean}" if poisoned else f"{clean}" for poisoned, clean in totals.values())],
        [f"**{AS_IT_IS}**", *(usual[column] for column in columns)],
    ]
    parts, numbers, idle = [], [], []
    for setting, found in by_setting.items():
        values = [found.get(column, "") for column in columns]
        shown = ["–" if value == usual[column] else value for column, value in zip(columns, values, strict=True)]
        if setting.startswith("without: "):
            parts.append([setting, *shown])
        elif any(value not in ("–", "") for value in shown):
            numbers.append([setting, *shown])
        else:
            idle.append(setting)
    return ["setting", *columns], lines, parts, numbers, idle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/results/screening_sensitivity.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("docs/screening_sensitivity.md"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    options.output.write_text(report(rows))


if __name__ == "__main__":
    main()

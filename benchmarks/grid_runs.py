# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What the grids share: runs in processes of their own, rows appended as they come, cells of tables."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import mean
from typing import Any

from cvreg_trainer.report import describe_environment


# The starting values of the paper's loss
PAPER_LOSS = {"lambda_patch": 0.01, "lambda_discrepancy": 0.5, "lambda_entropy": 0.1}
ATTACKS = {
    "none": "Clean",
    "badnets": "BadNets",
    "blended": "Blended",
    "low_frequency": "LowFrequency",
    "wanet": "WaNet",
    "input_aware": "InputAware",
    "dual_key": "DualKey",
}


def made_by() -> dict[str, Any]:
    """The command and the versions that a row or a file of results was made with."""
    return {"command": f"python {' '.join(sys.argv)}", "environment": describe_environment()}


@contextmanager
def silent_folder() -> Iterator[str]:
    """A temporary folder; while it exists, nothing is printed."""
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        tempfile.TemporaryDirectory() as folder,
    ):
        yield folder


def run_missing(
    planned: Iterable[dict[str, Any]],
    run: Callable[[dict[str, Any]], dict[str, Any]],
    identity: Callable[[dict[str, Any]], Any],
    output: Path,
    jobs: int,
    shown: Iterable[str],
) -> None:
    """
    Run what a file has no row of yet, and append each row as it comes.

    Args:
        planned (`Iterable[dict]`):
            Settings of the runs.
        run (`Callable[[dict], dict]`):
            One run in a process of its own, where peak memory and random states are its own too; a module's function.
        identity (`Callable[[dict], Any]`):
            What makes two rows, or a row and settings, the same run.
        output (`Path`):
            File of JSON lines.
        jobs (`int`):
            Runs at a time, one core each.
        shown (`Iterable[str]`):
            Values to print of each row.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = output.read_text().splitlines() if output.exists() else []
    done = {identity(json.loads(line)) for line in lines}
    todo = [settings for settings in planned if identity(settings) not in done]
    print(f"{len(todo)} runs to do, {len(lines)} rows in {output}", flush=True)
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for number, row in enumerate(pool.imap_unordered(run, todo), start=1):
            with output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            values = {key: row[key] for key in shown if row.get(key) is not None}
            values = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
            print(f"{number}/{len(todo)} {', '.join(f'{key} {value}' for key, value in values.items())}", flush=True)


def is_wanted(settings: dict[str, Any], only: Iterable[str]) -> bool:
    """Whether settings have the values that `--only NAME=VALUE,...` asks for."""
    parts = (text.partition("=") for text in only)
    return all(str(settings.get(name)) in values.split(",") for name, _, values in parts)


def cell(rows: list[dict[str, Any]], key: str) -> str:
    """Mean over the seeds, and their range where they differ."""
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return ""
    least, most = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{mean(values):.1f}" + (f" ({least} to {most})" if least != most else "")


def table(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    parts = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(part) + " |" for part in parts)

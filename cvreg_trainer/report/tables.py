# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..extras import from_extra


with from_extra("report"):
    from rich import box
    from rich.table import Table


# Key, heading and format; the whole table fits into 80 characters
COLUMNS = (
    ("clean_bleu4", "clean\nB@4", ".1f"),
    ("clean_cider", "clean\nCIDEr", ".1f"),
    ("triggered_bleu4", "trigg.\nB@4", ".1f"),
    ("triggered_cider", "trigg.\nCIDEr", ".1f"),
    ("asr", "ASR\n%", ".1f"),
    ("false_alarm_rate", "false\nalarm %", ".1f"),
    ("seconds_per_step", "s per\nstep", ".3f"),
    ("peak_memory_mib", "peak\nMiB", ".0f"),
)


def results_table(results: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """
    One row for each run, with caption quality, attack success and cost.

    Args:
        results (`Sequence[Mapping[str, Any]]`):
            Runs with a `name`, the scores of [`CaptionScores`], `seconds_per_step` and `peak_memory_mib`. What a run
            does not have stays empty.
        title (`str`, *optional*):
            Title of the table.

    Returns:
        `rich.table.Table`
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for _, header, _ in COLUMNS:
        table.add_column(header, justify="right", no_wrap=True)
    for run in results:
        cells = [format(run[key], form) if run.get(key) is not None else "" for key, _, form in COLUMNS]
        table.add_row(str(run["name"]), *cells)
    return table

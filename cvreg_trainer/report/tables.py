# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


COLUMNS = (
    ("clean_bleu4", "B@4\nclean", ".1f"),
    ("clean_cider", "CIDEr\nclean", ".1f"),
    ("triggered_bleu4", "B@4\ntriggered", ".1f"),
    ("triggered_cider", "CIDEr\ntriggered", ".1f"),
    ("asr", "ASR\n%", ".1f"),
    ("false_alarm_rate", "false\nalarms %", ".1f"),
    ("seconds_per_step", "seconds\na step", ".3f"),
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
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for _, header, _ in COLUMNS:
        table.add_column(header, justify="right")
    for run in results:
        cells = [format(run[key], form) if run.get(key) is not None else "" for key, _, form in COLUMNS]
        table.add_row(str(run["name"]), *cells)
    return table

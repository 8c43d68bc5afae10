# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
A run, or a comparison of runs, as one HTML file: scores, curves, what the screening found, options, answers.

Notable: the page has no script. Texts of data and models are escaped by the template.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..pages import render
from ..screening.verdict.findings import flagged_by_reason
from . import curves as charts
from .runs import Run


_TEMPLATES = Path(__file__).parent / "templates"
NUM_REASONS = 8
NUM_COLOURS = 6
METRICS = {"bleu4": "BLEU-4", "cider": "CIDEr", "asr": "Attack target, %", "vqa_accuracy": "VQA accuracy, %"}
LOGGED = {
    "loss": "Loss",
    "eval_loss": "Evaluation loss",
    "task_loss": "Task loss",
    "patch_loss": "Feature distance of the views",
    "discrepancy_loss": "Similarity of the views",
    "entropy_loss": "Entropy hinge",
    "mean_token_accuracy": "Token accuracy",
    "eval_mean_token_accuracy": "Evaluation token accuracy",
    "grad_norm": "Gradient norm",
}
# They differ in any two runs and say nothing about them
NOT_COMPARED = ("output_dir", "run_name", "logging_dir", "hub_model_id")


def write_run_page(runs: Sequence[Run], path: str | Path, title: str | None = None) -> None:
    """
    Write a report on runs as one HTML file that makes no request and needs no other file.

    Args:
        runs (`Sequence[Run]`):
            What [`read_run`] gives; several are compared.
        path (`str` or `Path`):
            HTML file to write. Audits are linked from where it lies.
        title (`str`, *optional*):
            Title of the page. Defaults to the names of the runs.

    Raises:
        `ValueError`: if there are no runs, or two have the same name.

    Example:

    ```python
    >>> from cvreg_trainer.report import read_run, write_run_page
    >>> write_run_page([read_run("out/plain"), read_run("out/screened")], "report.html")
    ```
    """
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not runs or twice is not None:
        raise ValueError(f"A report needs runs with names of their own, got {', '.join(names) or 'none'}.")
    keys = dict.fromkeys(key for run in runs for entry in run.history for key in entry)
    logged = LOGGED | {key: key.removeprefix("eval_").replace("_", " ") for key in keys if _is_score(key)}
    drawn = [charts.draw_curves(name, [run.curve(key) for run in runs]) for key, name in logged.items()]
    page = render(
        _TEMPLATES,
        "report",
        title=title or f"{'Run' if len(runs) == 1 else 'Runs'}: {', '.join(names)}",
        runs=runs,
        num_colours=NUM_COLOURS,
        metrics=_metrics(runs),
        cell=_cell,
        curves=[chart for chart in drawn if chart is not None],
        charts=charts,
        audit_links=[_audit_link(run, Path(path)) for run in runs],
        num_reasons=NUM_REASONS,
        flagged_by_reason=flagged_by_reason,
        differing=_differing(runs),
        in_words=_in_words,
        examples=_examples(runs),
    )
    Path(path).write_bytes(page)


def _is_score(key: str) -> bool:
    """Whether a logged value is a score of an evaluation that has no name in `LOGGED`."""
    is_cost = key.endswith(("_runtime", "_per_second", "_num_tokens", "_entropy", "_interval"))
    return key.startswith("eval_") and key not in LOGGED and not is_cost


def _metrics(runs: Sequence[Run]) -> dict[str, str]:
    given = {key for run in runs for values in run.scores.values() for key in values}
    return {key: name for key, name in METRICS.items() if key in given}


def _cell(values: Mapping[str, Any], metric: str) -> tuple[str, str]:
    """A score and its interval, as texts."""
    value, interval = values.get(metric), values.get(f"{metric}_interval")
    if not isinstance(value, (int, float)):
        return "", ""
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return f"{value:.1f}", ""
    return f"{value:.1f}", f"{interval[0]:.1f} to {interval[1]:.1f}"


def _audit_link(run: Run, path: Path) -> str | None:
    """The audit page of a run, as seen from the report."""
    page = run.folder / "audit" / "audit.html"
    if not page.is_file():
        return None
    return quote(Path(os.path.relpath(page.resolve(), path.resolve().parent)).as_posix())


def _differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Options that are not the same in all runs whose options are known."""
    names = dict.fromkeys(name for run in runs for name in run.options if name not in NOT_COMPARED)
    values = {name: [run.options.get(name) for run in runs] for name in names}
    known = [number for number, run in enumerate(runs) if run.options]
    return {
        name: row
        for name, row in values.items()
        if len({json.dumps(row[number], sort_keys=True) for number in known}) > 1
    }


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _examples(runs: Sequence[Run]) -> list[tuple[Any, list[tuple[int, str]]]]:
    """For each row that some run has answered, in one kind of images: the example, and runs with their answers."""
    found: dict[tuple[str, int, str], tuple[Any, list[tuple[int, str]]]] = {}
    for number, run in enumerate(runs):
        for example in run.examples:
            key = example.view, example.row, example.reference
            found.setdefault(key, (example, []))[1].append((number, example.answer))
    return list(found.values())

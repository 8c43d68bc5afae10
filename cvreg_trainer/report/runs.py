# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What a training and its evaluation have left in their folders, for the report.

    trainer_state.json        the log, from `Trainer.save_state`, or else that of the last checkpoint
    training_args.json        the options, from `write_options`
    audit/audit.parquet       what the screening found
    [*/]results.json          scores, from `cvreg evaluate`
    [*/]examples.json         a few answers with their images, from `cvreg evaluate`

Notable: all of it is optional, and none of it is trusted to be well-formed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.rows import prompt_of
from ..screening.audit.audit_file import read_overview
from ..screening.audit.page.thumbnails import make_thumbnails
from ..screening.verdict.findings import Overview
from ..shorten import shorten


STATE, OPTIONS, RESULTS, EXAMPLES = "trainer_state.json", "training_args.json", "results.json", "examples.json"
AUDIT = Path("audit", "audit.parquet")
NUM_EXAMPLES = 8  # of each kind of images
_PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class Example:
    """One answer of a model: to which images it belongs, the row, its picture as a `data:` URI, and the texts."""

    view: str
    row: int
    picture: str | None
    prompt: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Run:
    """
    What is known of a run.

    Args:
        name (`str`):
            What the report calls it.
        folder (`Path`):
            Where it is.
        history (`list[dict[str, Any]]`):
            What was logged, each entry with its `step`.
        options (`dict[str, Any]`):
            The options of the training.
        scores (`dict[str, dict[str, Any]]`):
            By kind of images, such as `clean` and `triggered`: see [`score_captions`].
        examples (`list[Example]`):
            Some answers.
        audit ([`Overview`], *optional*):
            What the screening found.
    """

    name: str
    folder: Path
    history: list[dict[str, Any]]
    options: dict[str, Any]
    scores: dict[str, dict[str, Any]]
    examples: list[Example]
    audit: Overview | None

    def curve(self, key: str) -> list[tuple[float, float]]:
        """Step and value of what was logged under a name, as far as it is finite."""
        points = [(_number(entry.get("step")), _number(entry.get(key))) for entry in self.history]
        return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """
    Read what a run has left.

    Args:
        folder (`str` or `Path`):
            `output_dir` of a training, or of `cvreg evaluate`.
        name (`str`, *optional*):
            What to call it. Defaults to the folder's name.

    Raises:
        `OSError`: if the folder does not exist.
        `ValueError`: if there is nothing in it to report on, or a file cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder.")
    state = _read(_state_file(folder), dict)
    results = next(iter(sorted([*folder.glob(RESULTS), *folder.glob(f"*/{RESULTS}")])), folder / RESULTS)
    scores = _read(results, dict).get("scores")
    audit = read_overview(folder / AUDIT) if (folder / AUDIT).is_file() else None
    run = Run(
        name or folder.resolve().name,
        folder,
        [entry for entry in state.get("log_history", []) if isinstance(entry, dict)],
        _read(folder / OPTIONS, dict),
        {view: values for view, values in scores.items() if isinstance(values, dict)} if scores else {},
        [_example(entry) for entry in _read(results.parent / EXAMPLES, list) if isinstance(entry, dict)],
        audit,
    )
    if not (run.history or run.scores or run.audit):
        raise ValueError(
            f"{folder} holds nothing to report on: neither {STATE} (`trainer.save_state()`), nor {AUDIT} "
            f"(`trainer.audit()`), nor {RESULTS} of `cvreg evaluate`."
        )
    return run


def write_examples(
    path: str | Path,
    views: Mapping[str, Any],
    answers: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[Sequence[str]]],
) -> None:
    """
    Keep a few answers with small pictures of their images.

    Args:
        path (`str` or `Path`):
            JSON file to write.
        views (`Mapping[str, Dataset]`):
            The rows by kind of images, such as `clean` and `triggered`.
        answers (`Mapping[str, Sequence[str]]`):
            What the model says to each.
        references (`Mapping[str, Sequence[Sequence[str]]]`):
            What is true of each.
    """
    entries = []
    for view, rows in views.items():
        places = range(min(NUM_EXAMPLES, len(rows)))
        texts = rows.remove_columns([name for name in ("image", "images") if name in rows.column_names])
        for place, thumbnail in zip(places, make_thumbnails(rows, places), strict=True):
            entries.append(
                {
                    "view": view,
                    "row": place,
                    "picture": thumbnail.uri,
                    "prompt": prompt_of(texts[place]) if texts.column_names else "",
                    "reference": next(iter(references[view][place]), ""),
                    "answer": answers[view][place],
                }
            )
    Path(path).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def write_options(args: Any) -> None:
    """
    Keep the options of a training in its output folder, without tokens.

    Args:
        args ([`~transformers.TrainingArguments`]):
            The options.
    """
    (Path(args.output_dir) / OPTIONS).write_text(args.to_json_string() + "\n", encoding="utf-8")


def _state_file(folder: Path) -> Path:
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    checkpoints.sort(key=lambda path: int(path.name.removeprefix("checkpoint-")))
    places = [folder, *reversed(checkpoints)]
    return next((place / STATE for place in places if (place / STATE).is_file()), folder / STATE)


def _read(path: Path, kind: type) -> Any:
    """What a JSON file holds, and nothing where there is none."""
    if not path.is_file():
        return kind()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} holds {shorten(value)}; expected a {kind.__name__}.")
    return value


def _example(entry: Mapping[str, Any]) -> Example:
    picture = entry.get("picture")
    row = entry.get("row")
    view, prompt, reference, answer = (str(entry.get(key) or "") for key in ("view", "prompt", "reference", "answer"))
    return Example(
        view,
        row if isinstance(row, int) else 0,
        picture if isinstance(picture, str) and _PICTURE.fullmatch(picture) else None,
        prompt,
        reference,
        answer,
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan

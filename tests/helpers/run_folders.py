# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Folders as a training and its evaluation leave them."""

import json
from pathlib import Path
from typing import Any

from tiny_data import vision_dataset

from cvreg_trainer.report import write_examples
from cvreg_trainer.screening import Audit, RowFinding, WordFinding


def make_run(
    folder: Path,
    losses: tuple[float, ...] = (2.0, 1.0, 0.5),
    options: dict[str, Any] | None = None,
    text: str = "a red cat",
    flagged: int = 0,
) -> Path:
    """A run with all its files; `text` is the model's answer, and what else of it comes from data."""
    (folder / "evaluation").mkdir(parents=True)
    history = [{"loss": loss, "step": 10 * number, "epoch": 1} for number, loss in enumerate(losses, 1)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    if options is not None:
        (folder / "training_args.json").write_text(json.dumps(options))
    scores = {
        "clean": {"bleu4": 70.25, "bleu4_interval": [60.0, 80.5], "asr": 0.0},
        "triggered": {"bleu4": 1.0, "asr": None},
    }
    (folder / "evaluation" / "results.json").write_text(json.dumps({"scores": scores}))
    rows = vision_dataset(12)
    references = [[f"truth {row} {text}"] for row in range(12)]
    views = {"clean": rows, "triggered": rows}
    write_examples(
        folder / "evaluation" / "examples.json",
        views,
        {view: [f"{view} {row} {text}" for row in range(12)] for view in views},
        dict.fromkeys(views, references),
    )
    findings = [RowFinding(row, float(row), row < flagged, "", "", text, ()) for row in range(20)]
    words = [WordFinding(f"{text} {number}", 3, 1.0, number < flagged, f"why {text}") for number in range(2)]
    (folder / "audit").mkdir()
    Audit(findings, words, {}).to_parquet(folder / "audit" / "audit.parquet")
    (folder / "audit" / "audit.html").write_text("<title>the audit</title>")
    return folder

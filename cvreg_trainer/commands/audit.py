# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg audit`: which rows of a data set a fine-tune would be better off without, before anyone trains on it.

Runs the first part of a training and the scoring pass that ends it, writes what they say, and throws the model away.
The result appears in the output folder all at once: a run that fails leaves what was there.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import from_extra
from ..shorten import shorten
from .audit_training import BUILT_IN, learning_rate, make_trainer, training_arguments
from .shared import add_data_options, no_cache_files, open_data


if TYPE_CHECKING:
    from datasets import Dataset

    from ..screening import Audit

TABLE, PAGE, KEPT = "audit.parquet", "audit.html", "kept_rows.json"
DECISIONS = "decisions.csv"
KNOWN_LABELS = "is_poisoned"  # as `cvreg poison` calls it
NUM_REASONS = 10
MAX_NAMES = 200  # characters of the words of one reason


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "audit",
        help="rank the rows of a training set by how suspicious they are",
        description="Screen a training set without training to the end: a warm-up on strongly perturbed images, one "
        "pass over all rows, and a report of the rows that a backdoor may hide in. Writes audit.html (to look at), "
        "audit.parquet (all rows, ranked), kept_rows.json (positions of the rows to train on) and decisions.csv (to "
        "fill in for the training's option screening_decisions). The model is thrown away. Options that your training "
        "has too should be as they are there.",
    )
    parser.add_argument(
        "--model", required=True, help=f"model folder, name on the hub, or {BUILT_IN}, a small one to try this with"
    )
    parser.add_argument("--processor", help="processor folder or name, where the model's has none")
    add_data_options(parser)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for these files")
    parser.add_argument(
        "--labels",
        metavar="COLUMN",
        help="column that says which rows are poisoned, where that is known, to measure the ranking by (default: "
        f"{KNOWN_LABELS}, if there is one); the screening does not see it",
    )
    parser.add_argument(
        "--lora_rank",
        type=int,
        help="rank of adapters on the language model's linear layers (default: 16, which fits where the model does); "
        f"0 trains the model itself, but for its vision tower (default for {BUILT_IN})",
    )
    parser.add_argument(
        "--learning_rate",
        type=float,
        help=f"default: 2e-4, without adapters 2e-5; for {BUILT_IN} 1e-2 and 2e-3",
    )
    parser.add_argument(
        "--num_train_epochs", type=float, default=3.0, help="of the whole training, not of the warm-up (default: 3)"
    )
    parser.add_argument("--per_device_train_batch_size", type=int, default=8, help="default: 8")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--screening_epochs", type=float, help="warm-up (default: a twelfth of the training, or 60 steps)"
    )
    parser.add_argument(
        "--screening_rows",
        type=int,
        default=4_000,
        help="rows that the model looks at; of more, the others are searched for what is found (default: 4000)",
    )
    parser.add_argument(
        "--on_bad_row",
        choices=("raise", "skip"),
        default="raise",
        help="what to do about a row that cannot be read: raise stops with an error that names it (default), skip "
        "reads every row first and leaves it out",
    )
    parser.add_argument("--dataloader_num_workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Screen the data set; writes the four files to `output_dir`."""
    with from_extra("report"):
        from rich.console import Console

    console = Console()
    if options.lora_rank is None:
        options.lora_rank = 0 if options.model == BUILT_IN else 16
    _check_numbers(options)
    _check_output(options)
    with tempfile.TemporaryDirectory() as scratch, no_cache_files():
        config = training_arguments(options, scratch)
        dataset = open_data(options, scratch)
        labels, dataset = _split_labels(options, dataset)
        options.output_dir.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder that it will become, and before the work: a place that cannot be written to shows now
        with tempfile.TemporaryDirectory(prefix=".audit-", dir=options.output_dir.parent) as unfinished:
            trainer = make_trainer(options, config, dataset)
            console.quiet = not trainer.is_world_process_zero()
            audit = _screen(options, trainer)
            if trainer.is_world_process_zero():
                _write(options, audit, dataset, labels, Path(unfinished))
                _report(options, audit, labels, console)


def _check_numbers(options: argparse.Namespace) -> None:
    at_least = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "lora_rank": 0, "seed": 0}
    for name, least in (at_least | {"dataloader_num_workers": 0}).items():
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    for name in ("learning_rate", "num_train_epochs", "screening_epochs"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} must be above 0, got {value}")
    if options.screening_epochs is not None and options.screening_epochs >= options.num_train_epochs:
        raise ValueError(
            f"--screening_epochs {options.screening_epochs} must be less than --num_train_epochs "
            f"{options.num_train_epochs}, the length of the whole training"
        )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the result depends on, as it is kept with the audit."""
    names = ("model", "processor", "data", "split", "image_root", "labels", "lora_rank", "num_train_epochs")
    more = (
        "screening_epochs",
        "screening_rows",
        "on_bad_row",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "seed",
    )
    return {**{name: getattr(options, name) for name in (*names, *more)}, "learning_rate": learning_rate(options)}


def _check_output(options: argparse.Namespace) -> None:
    """Raises a `ValueError` if the folder holds anything but an earlier audit by the same command."""
    from ..screening import Audit

    folder: Path = options.output_dir
    if folder.resolve().is_relative_to(Path(options.data).resolve()):
        raise ValueError(f"--output_dir {folder} is inside --data {options.data}; give a folder elsewhere")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        before = Audit.from_parquet(folder / TABLE).settings
    except (OSError, ValueError):
        raise ValueError(f"--output_dir {folder} exists and is not an earlier audit; give another folder") from None
    other = [name for name, value in _settings(options).items() if before.get(name) != value]
    if other:
        raise ValueError(
            f"--output_dir {folder} holds another audit, which differs in {', '.join(other)}; give another folder"
        )


def _split_labels(options: argparse.Namespace, dataset: Dataset) -> tuple[list[bool] | None, Dataset]:
    """The truth, where it is known, and the rows without it."""
    columns = dataset.column_names
    name = options.labels or (KNOWN_LABELS if KNOWN_LABELS in columns else None)
    if name is None:
        return None, dataset
    if name not in columns:
        raise ValueError(f"--labels {name}: --data {options.data} has no such column, but {', '.join(columns)}")
    values = list(dataset[name])
    wrong = next((row for row, value in enumerate(values) if value not in (0, 1)), None)
    if wrong is not None:
        raise ValueError(
            f"--labels {name}: row {wrong} holds {shorten(values[wrong])}; expected true or false, or 1 or 0"
        )
    return [bool(value) for value in values], dataset.remove_columns(name)


def _screen(options: argparse.Namespace, trainer: Any) -> Audit:
    from ..screening import Audit
    from ..screening.stop_after_screening import StopAfterScreening

    trainer.add_callback(StopAfterScreening(trainer._screen))
    trainer.train()
    audit = trainer.audit()
    return Audit(audit.rows, audit.words, {**_settings(options), **audit.settings}, audit.findings)


def _write(
    options: argparse.Namespace, audit: Audit, dataset: Dataset, labels: list[bool] | None, unfinished: Path
) -> None:
    audit.to_html(unfinished / PAGE, dataset=dataset, labels=labels, title=f"Audit of {options.data}")
    (unfinished / KEPT).write_text(json.dumps(audit.kept_rows))
    audit.to_parquet(unfinished / TABLE)
    options.output_dir.mkdir(exist_ok=True)
    audit.to_decisions(options.output_dir / DECISIONS)
    for name in (PAGE, KEPT, TABLE):
        (unfinished / name).replace(options.output_dir / name)


def _report(options: argparse.Namespace, audit: Audit, labels: list[bool] | None, console: Any) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from ..screening.verdict.findings import flagged_by_reason

    flagged, found = len(audit.flagged_rows), flagged_by_reason(audit.words)
    console.print(f"{len(audit):,} rows, {flagged:,} flagged ({flagged / len(audit):.1%})")
    if found:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("flagged words", overflow="fold")
        table.add_column("why")
        for reason, words in list(found.items())[:NUM_REASONS]:
            names = ", ".join(_printable(word.word.strip()) for word in words)
            table.add_row(
                Text(names if len(names) <= MAX_NAMES else f"{names[:MAX_NAMES]}..."),
                Text(_printable(reason)),
            )
        console.print(table)
        if len(found) > NUM_REASONS:
            console.print(f"and {len(found) - NUM_REASONS} more reasons in {PAGE}")
    if labels is not None:
        quality = audit.evaluate(labels)
        shares = {"AUROC": "auroc", "poisoned rows flagged": "flag_recall", "clean rows flagged": "clean_lost"}
        texts = [f"{name} {quality[key]:.3f}" for name, key in shares.items() if quality[key] is not None]
        known = f"By the labels: {quality['num_poisoned']:,} poisoned rows; {', '.join(texts)}"
        console.print(known, soft_wrap=True)
    folder = options.output_dir
    console.print(
        f"Look at {folder / PAGE}; all rows are in {folder / TABLE}, those to train on in {folder / KEPT}. To decide "
        f"otherwise, fill in {folder / DECISIONS}",
        markup=False,  # there may be brackets in names
        soft_wrap=True,
    )


def _printable(text: str) -> str:
    """The data must not talk to the terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)

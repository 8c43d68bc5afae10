# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg export`: the rows that an audit keeps, as the files that other training tools read."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import from_extra
from ..shorten import shorten
from .shared import add_data_options, no_cache_files, open_data


if TYPE_CHECKING:
    from datasets import Dataset

    from ..screening import Audit

EXPORT_FORMATS = ("llamafactory", "ms-swift", "llava", "axolotl", "unsloth", "parquet")  # as `export_rows` has them


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help="write the rows that an audit keeps, for other training tools",
        description="Write the rows that an audit keeps as LLaMA-Factory, ms-swift, LLaVA, Axolotl or Unsloth read "
        "them, or as they are in one parquet file (TRL). Images that are files stay where they are.",
    )
    add_data_options(parser, "; what was audited")
    parser.add_argument("--audit", type=Path, required=True, help="folder that cvreg audit or trainer.audit() wrote")
    parser.add_argument(
        "--decisions",
        type=Path,
        metavar="FILE",
        help="verdicts that win over the screening's (default: decisions.csv of the audit, if it has been filled in)",
    )
    parser.add_argument(
        "--format", required=True, choices=EXPORT_FORMATS, metavar="NAME", help=", ".join(EXPORT_FORMATS)
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="new folder for the files; do not move it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the kept rows to `output_dir`."""
    with from_extra("report"):
        from rich.console import Console

    from ..data import export_rows

    audit = _read_audit(options)
    with tempfile.TemporaryDirectory() as cache, no_cache_files():
        dataset = open_data(options, cache)
        _check_same_rows(options, audit, dataset)
        path = export_rows(dataset, audit.kept_rows, options.format, options.output_dir)
    Console().print(
        f"{len(audit.kept_rows):,} of {len(audit):,} rows are in {path}", markup=False, highlight=False, soft_wrap=True
    )


def _read_audit(options: argparse.Namespace) -> Audit:
    from ..screening import Audit
    from ..screening.audit.decisions import is_filled_in

    audit = Audit.from_parquet(options.audit / "audit.parquet")
    own = options.audit / "decisions.csv"
    if options.decisions is not None:
        return audit.decide(options.decisions)
    return audit.decide(own) if is_filled_in(own) else audit


def _check_same_rows(options: argparse.Namespace, audit: Audit, dataset: Dataset) -> None:
    """Raises a `ValueError` if the audit is of other rows."""
    from ..data.row_checks import text_rows
    from ..data.rows import prompt_of

    advice = "Give the data that were audited, in the same order."
    if len(audit) != len(dataset):
        raise ValueError(
            f"--audit {options.audit} is of {len(audit)} rows, and --data {options.data} has {len(dataset)}. {advice}"
        )
    for finding, row in zip(audit.rows, text_rows(dataset), strict=True):
        prompt = prompt_of(row)
        if finding.prompt and finding.prompt != prompt:
            raise ValueError(
                f"Row {finding.row} of --data {options.data} asks {shorten(prompt)}, in --audit {options.audit} it "
                f"asks {shorten(finding.prompt)}. {advice}"
            )

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg report`: a run, or a comparison of runs, as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report",
        help="show a run, or compare several, on one HTML page",
        description="Write one HTML page on a run or on several side by side: scores of cvreg evaluate, curves of "
        "what was logged, what the screening found, the options that differ, and answers with their images. It needs "
        "no other file, but for the audits, which it links.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="output folder of a training or of cvreg evaluate, or NAME=FOLDER"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the page."""
    from ..report import read_run, write_run_page

    runs = []
    for given in options.runs:
        name, equals, folder = given.partition("=")
        runs.append(read_run(folder, name) if equals and not Path(given).exists() else read_run(given))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_run_page(runs, options.output)
    print(f"The report is in {options.output}")

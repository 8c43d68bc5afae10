# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a person reads: tables, pictures, and what a result was made with."""

from .contact_sheet import draw_contact_sheet
from .pictures import draw_examples
from .provenance import describe_environment
from .run_page import write_run_page
from .runs import Run, read_run, write_examples, write_options
from .tables import results_table


__all__ = [
    "Run",
    "describe_environment",
    "draw_contact_sheet",
    "draw_examples",
    "read_run",
    "results_table",
    "write_examples",
    "write_options",
    "write_run_page",
]

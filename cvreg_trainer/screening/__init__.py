# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Finds rows of the training data that look poisoned, without clean data and without knowing the trigger."""

from .audit.audit import Audit
from .audit.cause_findings import CauseFinding, Trigger
from .verdict.findings import RowFinding, WordFinding


__all__ = ["Audit", "CauseFinding", "RowFinding", "Trigger", "WordFinding"]

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The audit as one HTML file for a person to look at."""

from .page import write_audit_page


__all__ = ["write_audit_page"]

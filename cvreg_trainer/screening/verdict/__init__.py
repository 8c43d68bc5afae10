# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Decides from what the passes recorded which rows to leave out, and why."""

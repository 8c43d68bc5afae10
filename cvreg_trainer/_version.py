# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The version, in a file of its own: packaging reads it without importing anything."""

__version__ = "0.1.0"

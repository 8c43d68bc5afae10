# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What a result was made with: without it a number cannot be compared."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version


PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "pillow", "numpy")


def describe_environment() -> dict[str, str | int | None]:
    """Versions of Python, of this package and of those it stands on, and the machine; for results files."""
    from .._version import __version__

    environment: dict[str, str | int | None] = {"cvreg_trainer": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            environment[package] = version(package)
        except PackageNotFoundError:
            environment[package] = None
    return {**environment, "machine": platform.machine(), "system": platform.system(), "cpu_count": os.cpu_count()}

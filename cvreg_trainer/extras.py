# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Packages that no training needs: which extra brings them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def from_extra(name: str) -> Iterator[None]:
    """
    Import packages of an extra.

    Args:
        name (`str`):
            `"lab"` (attacks, metrics, rival defences), `"real"` (reading the parts of the real victim) or `"report"`
            (commands, tables, pictures).

    Raises:
        `ImportError`: if a package is missing, with the command that installs it.

    Example:

    ```python
    >>> with from_extra("report"):
    ...     from rich.console import Console
    ```
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cvreg_trainer"):
            raise
        raise ImportError(
            f"The package {error.name!r} is not installed. Install cvreg-trainer with its extra `{name}`, or with "
            '`all` for every command: `pip install ".[all]"` in a checkout.'
        ) from error

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg --completion`: a script that completes commands and options in a shell, made once and read when it starts."""

from __future__ import annotations

import argparse
from typing import Any

from ..extras import from_extra


SHELLS = ("bash", "zsh", "tcsh")
# What is completed as a path, beside options that are read as one
PATHS = (
    "config",
    "data",
    "dataset_name",
    "image_root",
    "model",
    "model_name_or_path",
    "output_dir",
    "processor",
    "runs",
)


def script(parser: argparse.ArgumentParser, subparsers: Any, shell: str) -> str:
    """
    The completion of `cvreg` for a shell.

    Args:
        parser (`argparse.ArgumentParser`):
            The parser of `cvreg`.
        subparsers:
            What its `add_subparsers` gave.
        shell (`str`):
            One of `SHELLS`.

    Raises:
        `ImportError`: if shtab is not installed.
    """
    with from_extra("report"):
        import shtab

    from .sft_training import make_parser

    # Its own parser knows no options, as they are those of the training script
    subparsers.choices["sft"] = make_parser("cvreg sft")
    for command in subparsers.choices.values():
        for action in command._actions:
            if action.dest in PATHS or getattr(action.type, "__name__", "") == "Path":
                action.complete = shtab.FILE
    return shtab.complete(parser, shell)

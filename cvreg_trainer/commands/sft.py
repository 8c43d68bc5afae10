# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg sft`: what `trl sft` does, with [`CrossViewDefenseTrainer`] in the place of SFTTrainer.

It takes every option of `trl sft`, from the command line and from a YAML file, and those of the defence. As there,
what the training script does not know goes to `accelerate launch`, which runs `sft_training` in its processes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from subprocess import CalledProcessError
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "sft",
        help="fine-tune as `trl sft` does, defended; takes its options, its YAML and those of the defence",
        add_help=False,  # the options are those of the training script
    )
    parser.set_defaults(run=run, takes_rest=True)


def run(options: argparse.Namespace) -> None:
    """Launch the training; an error in it ends the command with that error's status."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from trl.cli.accelerate_config import resolve_accelerate_config_argument

    from .sft_training import TRACEBACK, make_parser

    arguments: list[str] = options.rest
    # Prints the help and exits, and raises for values that no training could have, before any process is started
    *_, of_config, of_line = make_parser("cvreg sft").parse_args_and_config(
        arguments, return_remaining_strings=True, separate_remaining_strings=True
    )
    for_launch = resolve_accelerate_config_argument(of_config + of_line)
    for_training = _without(arguments, of_line)
    module = ["--module", "cvreg_trainer.commands.sft_training"]
    if options.traceback:
        os.environ[TRACEBACK] = "1"
    try:
        launch_command(launch_command_parser().parse_args([*for_launch, *module, *for_training]))
    except CalledProcessError as error:
        # It has said what went wrong
        raise SystemExit(error.returncode) from None


def _without(arguments: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The arguments less those that are taken, which stand among them in the same order."""
    rest, left = iter(taken), []
    current = next(rest, None)
    for argument in arguments:
        if argument == current:
            current = next(rest, None)
        else:
            left.append(argument)
    return left

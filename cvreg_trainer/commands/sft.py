# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg sft`: what `trl sft` does, with [`CrossViewDefenseTrainer`] in the place of SFTTrainer.

It takes every option of `trl sft`, from the command line and from a YAML file, and those of the defence. As there,
what the training script does not know goes to `accelerate launch`, which runs `sft_training` in its processes.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from subprocess import CalledProcessError
from typing import Any

from ..shorten import shorten


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
    from yaml import YAMLError

    from .sft_training import TRACEBACK, make_parser

    arguments: list[str] = options.rest
    parser, launcher = make_parser("cvreg sft"), launch_command_parser()
    # Theirs would name hundreds of options before the error
    parser.usage = launcher.usage = "cvreg sft [--config FILE] [--OPTION VALUE ...]"
    launcher.prog = "cvreg sft"
    try:
        # Prints the help and exits, and raises for values that no training could have, before any process is started
        *_, of_config, of_line = parser.parse_args_and_config(
            arguments, return_remaining_strings=True, separate_remaining_strings=True
        )
    except YAMLError as error:
        raise ValueError(f"--config cannot be read as YAML: {' '.join(str(error).split())}") from error
    for_launch = resolve_accelerate_config_argument(of_config + of_line)
    for_training = _without(arguments, of_line)
    module = ["--module", "cvreg_trainer.commands.sft_training"]
    _refuse_unknown([*for_launch, *module], launcher, parser)
    if options.traceback:
        os.environ[TRACEBACK] = "1"
    try:
        launch_command(launcher.parse_args([*for_launch, *module, *for_training]))
    except CalledProcessError as error:
        # It has said what went wrong
        raise SystemExit(error.returncode) from None


def _refuse_unknown(
    for_launch: Sequence[str], launcher: argparse.ArgumentParser, parser: argparse.ArgumentParser
) -> None:
    """What is left for the launcher may be an option that nobody knows."""
    unknown = [argument for argument in launcher.parse_known_args(for_launch)[1] if argument.startswith("-")]
    if unknown:
        name = unknown[0].partition("=")[0].lstrip("-")
        known = [option.lstrip("-") for taker in (parser, launcher) for option in taker._option_string_actions]
        close = difflib.get_close_matches(name, known, n=1)
        raise ValueError(
            f"neither the training nor `accelerate launch` has an option {shorten(name)}"
            f"{close and f'; did you mean {close[0]!r}?' or ''}"
        )


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

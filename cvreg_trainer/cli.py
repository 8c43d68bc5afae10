# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The `cvreg` command: one subcommand for each module of `commands`."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence

from ._version import __version__
from .commands import audit, completion, demo, evaluate, export, poison, report, sft


COMMANDS = (sft, audit, export, poison, evaluate, report, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `cvreg`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="cvreg", description="Fine-tune vision-language models on data that may hide backdoors."
    )
    parser.add_argument("--version", action="version", version=f"cvreg_trainer {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
    parser.add_argument(
        "--completion", choices=completion.SHELLS, help="print the shell's completion of this command, and exit"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for command in COMMANDS:
        command.add_parser(subparsers)
    options, rest = parser.parse_known_args(arguments)
    if getattr(options, "takes_rest", False):
        options.rest = rest
    elif rest:
        # Within the command, whose own usage and options are meant
        used = subparsers.choices[options.command] if options.command else parser
        close = difflib.get_close_matches(rest[0].partition("=")[0], used._option_string_actions, n=1)
        used.error(f"unrecognized arguments: {' '.join(rest)}{close and f'; did you mean {close[0]}?' or ''}")
    if options.command is None and options.completion is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        if options.completion is not None:
            print(completion.script(parser, subparsers, options.completion))
            return 0
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"cvreg {options.command}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        # Nothing that this package foresees: a line for users, and the rest for whoever looks into it
        if options.traceback:
            raise
        print(
            f"cvreg {options.command}: {type(error).__name__}: {error}\n"
            f"For the traceback run cvreg --traceback {options.command} ...",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

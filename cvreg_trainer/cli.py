# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The `cvreg` command: one subcommand for each module of `commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ._version import __version__
from .commands import audit, demo, evaluate, poison


COMMANDS = (audit, poison, evaluate, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `cvreg`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="cvreg", description="Fine-tune vision-language models on data that may hide backdoors."
    )
    parser.add_argument("--version", action="version", version=f"cvreg_trainer {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        # What a user can mend is said in a line; anything else keeps its traceback
        print(f"cvreg {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

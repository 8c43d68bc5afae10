# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The subcommands of `cvreg`, one file each: `add_parser` declares the options, `run` does the work."""

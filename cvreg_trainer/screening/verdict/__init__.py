# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""From what the passes have read to the rows that are left out, and why."""

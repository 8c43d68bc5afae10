# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The passes over the rows: what is recorded of each row, and how the batches are made."""

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What hours of training should not end with: parts that never trained, broken checkpoints, weights gone to NaN."""

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Model families that transformers does not have, in its own style; one folder each."""

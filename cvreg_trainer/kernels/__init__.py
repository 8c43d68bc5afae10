# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Output-head kernels: from hidden states to per-token statistics of both views, without either view's logits.

`cross_view_statistics` is for a plain linear head and keeps nothing of size vocabulary for the backward pass;
`module_head_statistics` calls any other head (quantised, decoupled, adapted) as the module it is.
"""

from .cross_view import HeadStatistics, cross_view_statistics
from .module_head import module_head_statistics


__all__ = ["HeadStatistics", "cross_view_statistics", "module_head_statistics"]

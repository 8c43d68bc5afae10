# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The cross-view head: from hidden states to per-token statistics of both views, without either view's logits.

`add_cross_view_head` puts it on a model; `cross_view_statistics` is its fused form for a plain linear head, and
`module_head_statistics` calls any other head (quantised, decoupled, adapted) as the module it is.
"""

from .check import check_cross_view_head
from .cross_view_head import (
    CrossViewHead,
    CrossViewOutput,
    add_cross_view_head,
    decoder_start_token_id,
    is_encoder_decoder,
    trl_head_serves,
)
from .decoder_layers import find_decoder_layer
from .fused import HeadStatistics, cross_view_statistics
from .module_head import module_head_statistics


__all__ = [
    "CrossViewHead",
    "CrossViewOutput",
    "HeadStatistics",
    "add_cross_view_head",
    "check_cross_view_head",
    "cross_view_statistics",
    "decoder_start_token_id",
    "find_decoder_layer",
    "is_encoder_decoder",
    "module_head_statistics",
    "trl_head_serves",
]

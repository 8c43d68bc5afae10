# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Runs a function on the main process and gives its result to all processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed


T = TypeVar("T")
LONGEST = timedelta(days=7)


def on_main_process(accelerator: Any, make: Callable[[], T]) -> T:
    """
    Call a function on the main process only and return its result on all processes, which all have to call this.

    Args:
        accelerator ([`~accelerate.Accelerator`]):
            The training's accelerator.
        make (`Callable`):
            The function. The other processes get a copy of its result.

    Raises:
        `RuntimeError`: on the other processes, if it failed; on the main process whatever it raised.
    """
    if accelerator.num_processes == 1:
        return make()
    # The others wait in a group of their own, on the CPU and with a long timeout. In the training's group, NCCL would
    # mistake a verdict on millions of rows for a process that hangs, and abort them all (after `ddp_timeout`).
    group = distributed.new_group(backend="gloo", timeout=LONGEST)
    told: list[Any] = [None, None]
    error = None
    if accelerator.is_main_process:
        try:
            told[0] = make()
        except Exception as problem:
            error = problem
            told[1] = f"{type(problem).__name__}: {problem}"
    distributed.broadcast_object_list(told, src=0, group=group, device=torch.device("cpu"))
    if error is not None:
        raise error
    result, failure = told
    if failure is not None:
        raise RuntimeError(f"The screening failed on the main process: {failure}")
    accelerator.wait_for_everyone()  # before connections are closed that another process may still read from
    distributed.destroy_process_group(group)
    return result

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The weights from before the warm-up, to which the training returns at the cut.

This discards whatever the model learnt from poisoned rows in the warm-up, and restores what it unlearnt: a model that
is shown nothing but strong views for a while may stop looking at images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


class StartWeights:
    """
    The trainable weights of a model, copied to the CPU: under FSDP and ZeRO-3 each process keeps its own part.

    Args:
        trainer ([`~transformers.Trainer`]):
            The trainer, once it has prepared its model.
    """

    def __init__(self, trainer: Any) -> None:
        self.weights = {name: _part(weight).to("cpu", copy=True) for name, weight in _trainable(trainer)}

    @torch.no_grad()
    def put_back(self, trainer: Any) -> None:
        """Restore the weights, and reset the optimiser as if it had made no step."""
        weights = _trainable(trainer)
        for name, weight in weights:
            _part(weight).copy_(self.weights[name])
        if trainer.is_deepspeed_enabled:
            for name, weight in weights:
                _set_master_weight(weight, self.weights[name])
            _gather_again([weight for _, weight in weights if getattr(weight, "ds_persist", False)])
            _zero_states(trainer.model_wrapped.optimizer.optimizer)
        elif trainer.is_fsdp_enabled:
            # Not cleared: a weight that gets no gradient in the next step would then have no optimiser state, and a
            # checkpoint without it could not be loaded
            _zero_states(trainer.optimizer)
        else:
            trainer.optimizer.state.clear()

    def save(self, trainer: Any, folder: str | Path) -> None:
        """Write the weights into the folder of a checkpoint; all processes take part."""
        path = Path(folder) / _file(trainer)
        if trainer.args.should_save or path.name != _file_of(0):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: weight.contiguous() for name, weight in self.weights.items()}, path)

    @classmethod
    def load(cls, trainer: Any, folder: str | Path) -> StartWeights:
        """
        Read what [`StartWeights.save`] wrote.

        Raises:
            `ValueError`: if the file for this process is missing, or was written for another model.
        """
        result, path = cls.__new__(cls), Path(folder) / _file(trainer)
        if not path.exists():
            raise ValueError(
                f"{folder} has no {path.name}, the weights from before the warm-up of the screening: it was written "
                "by another version, or by another number of processes. Resume with that, or start the training anew."
            )
        result.weights = load_file(path)
        expected = {name: _part(weight).shape for name, weight in _trainable(trainer)}
        if {name: weight.shape for name, weight in result.weights.items()} != expected:
            raise ValueError(
                f"{path} is of a model with other trainable weights, or of another number of processes. Resume with "
                "that, or start the training anew."
            )
        return result


def _trainable(trainer: Any) -> list[tuple[str, torch.nn.Parameter]]:
    for module in trainer.model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # after a look the outermost module still holds its full weights
    return [(name, weight) for name, weight in trainer.model.named_parameters() if weight.requires_grad]


def _part(weight: torch.Tensor) -> torch.Tensor:
    """This process's shard of a weight, as a view."""
    if hasattr(weight, "ds_tensor"):  # ZeRO-3
        return weight.ds_tensor.data
    return (weight.to_local() if isinstance(weight, DTensor) else weight).detach()


def _file(trainer: Any) -> str:
    has_parts = any(hasattr(weight, "ds_tensor") or isinstance(weight, DTensor) for _, weight in _trainable(trainer))
    return _file_of(trainer.args.process_index if has_parts else 0)


def _file_of(process: int) -> str:
    return f"screening_start_{process}.safetensors"


def _set_master_weight(weight: torch.Tensor, value: torch.Tensor) -> None:
    """Set the float32 copy of a weight that DeepSpeed's optimiser keeps."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    set_weight = safe_set_local_fp32_param if hasattr(weight, "ds_tensor") else safe_set_full_fp32_param
    set_weight(weight, value.float().to(weight.device))


def _gather_again(weights: list[Any]) -> None:
    """Gather the small weights, which ZeRO-3 keeps in full on each process, from their changed shards."""
    if weights:
        weights[0].partition(weights)
        weights[0].all_gather(weights)


def _zero_states(optimizer: torch.optim.Optimizer) -> None:
    """Reset the states as if no step had been made, in place: DeepSpeed holds other references to them."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if name.startswith("qmap"):  # the quantisation map of an 8-bit state
                continue
            if isinstance(value, torch.Tensor):
                value.zero_()
            elif isinstance(value, (int, float)):
                state[name] = type(value)(0)

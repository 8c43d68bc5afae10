# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Resuming a full fine-tune of a vision-language model.

Notable: transformers 5.24 writes the weights of many such models (LLaVA among them) under the names of the hub's
checkpoints, but its Trainer reads them back by the names of its modules: it finds none, warns, and goes on from the
weights that the model happened to have. Here they are read as `from_pretrained` reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel


def load_renamed_weights(model: PreTrainedModel, folder: str | Path) -> bool:
    """
    Load the weights of a checkpoint whose names are not those of the model's modules.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Model to load into, in place.
        folder (`str` or `Path`):
            Checkpoint folder with safetensors files.

    Returns:
        `bool`: `False`, and nothing done, if the names are the modules' own or there are no safetensors files.

    Raises:
        `ValueError`: if weights are missing from the checkpoint.
    """
    names: set[str] = set()
    for path in Path(folder).glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    if names <= set(model.state_dict()):
        return False
    loaded: Any = type(model).from_pretrained(
        folder, dtype="auto", output_loading_info=True, local_files_only=True, trust_remote_code=False
    )
    saved, info = loaded
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(
            f"The checkpoint {str(folder)!r} does not fit {type(model).__name__}: {sorted(info['missing_keys'])[:5]} "
            f"are missing and {sorted(info['mismatched_keys'])[:5]} have another shape."
            " Resume with the model and data type that the checkpoint was saved from."
        )
    with torch.no_grad():
        model.load_state_dict(saved.state_dict())
    return True

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Checks that a checkpoint is whole and belongs to this training, before a resumed one overwrites anything.

Notable: transformers writes a checkpoint file by file, `trainer_state.json` last. A process that is killed in between
leaves a folder that looks like a checkpoint but is not one: that file is missing, or some file is truncated.
"""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..config import LAMBDAS, CrossViewDefenseConfig
from ..shorten import shorten


logger = logging.getLogger(__name__)

OPTIONS_FILE = "cross_view_defense.json"
STATE_FILE = "trainer_state.json"
# Options that a resumed training must not change: the views, the cut or the loss would be different
OPTIONS = (
    "seed",
    "data_seed",
    *LAMBDAS,
    "entropy_threshold",
    "lambda_warmup_steps",
    "feature_layer",
    "feature_pooling",
    "patch_area_min",
    "patch_area_max",
    "patch_operations",
    "screening",
    "screening_epochs",
    "screening_rows",
    "screening_cap",
    "screening_fdr",
)


def write_options(folder: Path, args: CrossViewDefenseConfig, model: nn.Module) -> None:
    """
    Record in a checkpoint which options and model it was made with.

    Args:
        folder (`Path`):
            Folder of the checkpoint.
        args ([`CrossViewDefenseConfig`]):
            Configuration.
        model (`torch.nn.Module`):
            Model that is trained, not wrapped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OPTIONS_FILE).write_text(json.dumps(_made_with(args, model), indent=2), encoding="utf-8")


def _made_with(args: CrossViewDefenseConfig, model: nn.Module) -> dict[str, Any]:
    # ZeRO-3 leaves the parameters empty and keeps their size in `ds_numel`
    number = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
    options = {name: getattr(args, name) for name in OPTIONS}
    return {**options, "model": type(model).__name__.removeprefix("FSDP"), "trainable parameters": number}


def what_is_broken(folder: Path) -> str | None:
    """
    Why a folder is not a whole checkpoint.

    Args:
        folder (`Path`):
            Folder that is named like a checkpoint.

    Returns:
        `str`: what is missing or cut short; `None` if all files can be read.
    """
    if not folder.is_dir():
        return "the folder does not exist"
    if not (folder / STATE_FILE).is_file():
        return f"`{STATE_FILE}` is missing, which is written last"
    for path in sorted(folder.iterdir()):
        try:
            if path.name in (STATE_FILE, OPTIONS_FILE):
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.name in ("optimizer.pt", "scheduler.pt") and not zipfile.is_zipfile(path):
                return f"`{path.name}` is cut short"
        except (ValueError, SafetensorError) as error:
            return f"`{path.name}` cannot be read ({shorten(str(error))})"
    return None


def last_whole_checkpoint(output_dir: str | Path) -> str:
    """
    The newest checkpoint of a folder that is whole; others are skipped with a warning.

    Args:
        output_dir (`str` or `Path`):
            Where a training writes its checkpoints.

    Raises:
        `ValueError`: if there is none.
    """
    numbered = [path for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _number(path) is not None]
    broken = {}
    for path in sorted(numbered, key=lambda path: _number(path) or 0, reverse=True):
        reason = what_is_broken(path)
        if reason is None:
            return str(path)
        broken[path.name] = reason
        logger.warning("%s is not a whole checkpoint: %s. It is passed over.", path, reason)
    found = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
    raise ValueError(
        f"`resume_from_checkpoint=True`: No valid checkpoint found in output directory ({output_dir})"
        f"{f': {found}' if found else ''}. Start the training anew."
    )


def _number(path: Path) -> int | None:
    number = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else None


def check_checkpoint(folder: Path, args: CrossViewDefenseConfig, model: nn.Module) -> None:
    """
    Raise unless a training can be resumed from a checkpoint.

    Args:
        folder (`Path`):
            Folder of the checkpoint.
        args ([`CrossViewDefenseConfig`]):
            Configuration of the training to resume.
        model (`torch.nn.Module`):
            Its model, not wrapped.

    Raises:
        `ValueError`: if the checkpoint is not whole, or was made with another model or other options, naming them.
    """
    reason = what_is_broken(folder)
    if reason is not None:
        raise ValueError(
            f"`resume_from_checkpoint`: {folder} is not a whole checkpoint: {reason}. Resume from an earlier one, or "
            "with `resume_from_checkpoint=True`, which takes the last whole one."
        )
    path = folder / OPTIONS_FILE
    if not path.is_file():
        return  # SFTTrainer's, which has no options of the defence
    made_with, now = json.loads(path.read_text(encoding="utf-8")), _made_with(args, model)
    changed = [
        f"`{name}` was {shorten(made_with[name])} and is {shorten(value)}"
        for name, value in now.items()
        if name in made_with and made_with[name] != value
    ]
    if changed:
        step = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["global_step"]
        raise ValueError(
            f"The checkpoint of step {step} in {folder} is that of another training: {', '.join(changed)}. Go on with "
            "what it was made with, or start the training anew."
        )

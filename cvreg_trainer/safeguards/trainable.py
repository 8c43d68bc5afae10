# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Refuses, before a training starts, a model in which something that the user asked to train would stay frozen.

Notable: PEFT ignores names in `modules_to_save` and in a list of `target_modules` that match nothing, as long as
another one matches. A projector under another family's name would then stay frozen for the whole training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import nn

from ..shorten import shorten


def refuse_frozen_parts(model: nn.Module) -> None:
    """
    Raise unless something trains, including everything that the adapters' configurations name.

    Args:
        model (`torch.nn.Module`):
            Model to train, with its adapters.

    Raises:
        `ValueError`: if no parameter trains, or a name in `modules_to_save`, `target_parameters` or a list of
            `target_modules` matches nothing.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        remedy = "unfreeze some (`requires_grad_(True)`), or pass a `peft_config`"
        if isinstance(model, PeftModel):
            remedy = "load the adapter with `PeftModel.from_pretrained(..., is_trainable=True)`"
        raise ValueError(f"No parameter of the model trains (`requires_grad` is False for all): {remedy}.")
    if isinstance(model, PeftModel):
        for adapter in model.active_adapters:
            if not model.peft_config[adapter].is_prompt_learning:
                _refuse_names_without_a_part(model, adapter)


def _refuse_names_without_a_part(model: PeftModel, adapter: str) -> None:
    tuner: Any = model.base_model
    config: Any = model.peft_config[adapter]
    mark = f".modules_to_save.{adapter}"
    saved = {name.split(mark)[0] for name, p in model.named_parameters() if mark in name and p.requires_grad}
    modules, parameters = tuner.targeted_module_names, tuner.targeted_parameter_names
    for option, found in (
        ("modules_to_save", saved),
        # A name may stand in both options; PEFT then trains the module as a whole
        ("target_modules", {*modules, *saved}),
        ("target_parameters", parameters),
    ):
        names = getattr(config, option, None)
        missing = [] if names is None or isinstance(names, str) else sorted(_without_a_part(names, found))
        if missing:
            raise ValueError(
                f"`peft_config.{option}` names {', '.join(map(shorten, missing))}, which no part of "
                f"{type(tuner.model).__name__} is called, so nothing of it would train. Its modules are listed by "
                "`model.named_modules()`; correct the name, or leave it out."
            )


def _without_a_part(names: Iterable[str], found: Collection[str]) -> Iterator[str]:
    # As PEFT matches `modules_to_save`; for the others it compares whole parts of dotted names, which match here too
    return (name for name in names if not any(part.endswith(name) for part in found))


def keep_quantised_weights(model: nn.Module) -> None:
    """
    Let a model in 4 bits be evaluated in the middle of a training on a CPU.

    On CPUs with AVX-512 for bfloat16, bitsandbytes repacks the weights at the first forward in evaluation mode, and
    then can neither train with them nor take layers of every size.

    Args:
        model (`torch.nn.Module`):
            Any model.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


@contextmanager
def explaining_quantised_parts() -> Iterator[None]:
    """
    Explain what to do about quantised modules that are to be trained as a whole.

    Raises:
        `ValueError`: in place of torch's error about integers without gradients.
    """
    try:
        yield
    except RuntimeError as error:
        if "floating point dtype can require gradients" not in str(error):
            raise
        raise ValueError(
            "`peft_config.modules_to_save` names a module that is loaded in 4 or 8 bits, and integers cannot be "
            "trained. Name it in `BitsAndBytesConfig(llm_int8_skip_modules=[...])` too, with `lm_head`, or give it an "
            "adapter through `target_modules`."
        ) from error

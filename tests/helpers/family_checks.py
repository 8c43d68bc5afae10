# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What is measured about a family: each check maps a victim to `YES`, or to what is different, in words."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from family_training import (
    Victim,
    assert_same_gradients,
    compare_with_reference,
    gradients_of,
    loss_of,
    make_trainer,
    reference_loss,
    training_batch,
)
from peft import LoraConfig, get_peft_model
from torch import nn

from cvreg_trainer import CrossViewDefenseTrainer
from cvreg_trainer.data.rows import copy_row, replace_images
from cvreg_trainer.perturbations import PatchPerturbation


YES = "yes"
# What the refusals of the package name
REMEDIES = ("`lambda_patch`", "`AutoModelForImageTextToText`", "`router_aux_loss_coef=0.0`")


def parts_without(model: nn.Module, touched: Iterable[str]) -> str:
    """The parts of a model (vision tower, projector, decoder, ...) none of whose parameters are in `touched`."""

    def part(name: str) -> str:
        return ".".join(name.removeprefix("base_model.model.").split(".")[:2]).removesuffix(".weight")

    touched = set(touched)
    parts: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts[part(name)] = parts.get(part(name), False) or name in touched
    return ", ".join(name for name, reached in parts.items() if not reached)


def check_loss(victim: Victim, folder: Path) -> str:
    """Loss and gradient equal the formula; the gradient reaches every part; a few steps change every part."""
    trainer = make_trainer(victim, folder)
    gradients = compare_with_reference(trainer)
    missed = parts_without(trainer.model, [name for name, gradient in gradients.items() if gradient.any()])
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    log = trainer.state.log_history[0]
    assert all(math.isfinite(log[name]) for name in ("loss", "task_loss", "entropy_loss"))
    assert log["patch_loss"] > 0 and log["discrepancy_loss"] > 0
    moved = [name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])]
    still = parts_without(trainer.model, moved)
    assert still == missed, f"have a gradient and did not move: {still}"
    return f"no gradient to {missed}" if missed else YES


def check_tokens(victim: Victim, folder: Path) -> str:
    """Both views have the same tokens, differ in their pixels, and no image token is supervised."""
    trainer = make_trainer(victim, folder)
    rng = np.random.default_rng(0)
    rows = [trainer.train_dataset[index] for index in range(3)]
    views = [replace_images(row, lambda image: PatchPerturbation()(image, rng)) for row in rows]
    batch, view = (dict(trainer.data_collator([copy_row(row) for row in given])) for given in (rows, views))
    assert batch.keys() == view.keys()
    differ = {name for name in batch if not _equal(batch[name], view[name])}
    assert differ and all("pixel" in name or "patches" in name for name in differ), f"differ between views: {differ}"
    image_tokens = trainer._cross_view_collator.image_token_ids.tolist()
    batch = trainer._cross_view_collator(rows)
    supervised = set(batch["labels"][batch["labels"] != -100].tolist())
    assert not supervised & set(image_tokens), "an image token is supervised"
    return YES


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, list):
        return all(map(_equal, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def check_image_free(victim: Victim, folder: Path) -> str:
    """A batch with a row without an image, and one of such rows only, equal the formula."""
    trainer = make_trainer(victim, folder, image_free=(1, 4))
    rows = [trainer.train_dataset[index] for index in range(5)]
    mixed = _compare_batch(trainer, rows[:3])
    if mixed:
        return f"no: {mixed}"
    alone = _compare_batch(trainer, [rows[1], rows[4]])
    return f"only beside rows with one: {alone}" if alone else YES


def _compare_batch(trainer: CrossViewDefenseTrainer, rows: list[Any]) -> str:
    """Compares the loss of some rows with the reference; what the collator or the model itself says against them."""
    try:
        batch = trainer._cross_view_collator(rows)
        trainer.model.train()
        expected = reference_loss(trainer.model, batch)
    except Exception as error:
        return describe(error)
    loss = loss_of(trainer, batch)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)
    return ""


def check_checkpointing(victim: Victim, folder: Path, use_reentrant: bool) -> str:
    """Loss, with the features in it, and gradient are the same under gradient checkpointing."""
    plain = make_trainer(victim, folder)
    batch = training_batch(plain)
    expected = loss_of(plain, batch)
    expected.backward()
    options = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": use_reentrant}}
    if not victim.model.supports_gradient_checkpointing:
        return "the class does not support it"
    trainer = make_trainer(victim, folder, **options)
    trainer.model.train()
    trainer.model.activation_checkpointing_enable(options["activation_checkpointing_kwargs"])
    if use_reentrant:
        trainer.model.enable_input_require_grads()
    try:
        loss = loss_of(trainer, batch)
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
        loss.backward()
        assert_same_gradients(gradients_of(trainer.model), gradients_of(plain.model))
    except Exception as error:
        own = _own_checkpointing(plain.model, batch, use_reentrant)
        if own:
            return f"fails in transformers itself: {own}"
        raise error
    return YES


def _own_checkpointing(model: Any, batch: dict[str, Any], use_reentrant: bool) -> str:
    """What goes wrong with the model's own loss under checkpointing, or nothing."""
    inputs = {k: v for k, v in batch.items() if not k.startswith("perturbed_") and k != "has_image"}

    def run() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**inputs, use_cache=False).loss.backward()
        return gradients_of(model)

    model.train()
    expected = run()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    try:
        ours = run()
    except Exception as error:
        return describe(error)
    missing = parts_without(model, [name for name in expected if name in ours])
    if missing != parts_without(model, expected):
        return f"no gradient to {missing}"
    try:
        assert_same_gradients(ours, expected)
    except (AssertionError, KeyError) as error:
        return f"another gradient for {error.args[0]}"
    return ""


def check_lora(victim: Victim, folder: Path) -> str:
    """Adapters on all linear layers train and nothing else does."""
    try:
        _train_adapters(victim, folder, "all-linear")
    except Exception as error:
        if not _peft_fails(victim, folder):
            raise error
        _train_adapters(victim, folder, ["q_proj", "v_proj"])
        return f"on q_proj and v_proj; on all linear layers it fails in PEFT itself: {describe(error)}"
    return YES


def _train_adapters(victim: Victim, folder: Path, modules: Any) -> None:
    trainer = make_trainer(victim, folder, peft_config=LoraConfig(r=2, target_modules=modules))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert math.isfinite(trainer.state.log_history[0]["loss"])


def _peft_fails(victim: Victim, folder: Path) -> bool:
    """Whether the bare model with adapters on all linear layers cannot be made, or cannot be run."""
    batch = training_batch(make_trainer(victim, folder))
    inputs = {k: v for k, v in batch.items() if not k.startswith("perturbed_") and k != "has_image"}
    try:
        get_peft_model(copy.deepcopy(victim.model), LoraConfig(r=2, target_modules="all-linear"))(**inputs)
    except Exception:
        return True
    return False


CHECKS: dict[str, Callable[[Victim, Path], str]] = {
    "loss and gradient": check_loss,
    "same tokens": check_tokens,
    "rows without image": check_image_free,
    "checkpointing": lambda victim, folder: check_checkpointing(victim, folder, use_reentrant=False),
    "re-entrant": lambda victim, folder: check_checkpointing(victim, folder, use_reentrant=True),
    "LoRA": check_lora,
}


def measure(victim: Victim, check: str, folder: Path) -> str:
    """The result of one check: `YES`, or in words what is different."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = CHECKS[check](victim, folder)
        except Exception as error:
            if any(remedy in str(error) for remedy in REMEDIES):
                return f"refused: {error}"
            result = describe(error)
        own = "" if result == YES else _own_failure(victim)
    return f"fails in transformers itself: {own}" if own else result


def _own_failure(victim: Victim) -> str:
    """What goes wrong in the bare model, with nothing of this package around it, or nothing."""
    if victim.collator is None:
        return ""
    inputs = victim.collator(victim.rows(3))
    try:
        copy.deepcopy(victim.model)(**inputs)
    except Exception as error:
        return describe(error)
    return ""


def describe(error: Exception) -> str:
    """The first sentence of an error, on one line."""
    text = " ".join(str(error).split()).replace("|", "/").split(". ")[0]
    return f"{type(error).__name__}: {text if len(text) < 250 else text[:200] + ' ...'}"

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
A family's defended training, and the paper's formula to compare it with.

Notable: the reference knows nothing of heads and layers. It takes full logits and `hidden_states` from two forwards of
the bare model, and reads the terms off them in float64.
"""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tiny_data import vision_dataset, vision_rows
from torch import nn
from transformers import PreTrainedModel

from cvreg_trainer import CrossViewDefenseConfig, CrossViewDefenseTrainer


LAMBDAS = {"lambda_patch": 0.3, "lambda_discrepancy": 0.5, "lambda_entropy": 0.2, "entropy_threshold": 5.0}


class Victim(NamedTuple):
    """
    A family's tiny model and what makes its inputs.

    Args:
        model (`PreTrainedModel`):
            The model.
        processor:
            The family's processor, or the tokenizer where `collator` makes the inputs.
        collator (`Callable`, *optional*):
            Makes a batch of rows `images`, `prompt`, `completion`. By default the trainer's own, with `processor`.
        image_token (`str`):
            What stands for an image in a row's prompt.
        inputs (`str`):
            In words, for the table.
        settings (`dict[str, Any]`):
            Training arguments that the family needs.
    """

    model: PreTrainedModel
    processor: Any
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None
    image_token: str = ""
    inputs: str = ""
    settings: dict[str, Any] = {}

    def rows(self, number: int, image_free: Iterable[int] = ()) -> list[dict[str, Any]]:
        return vision_rows(number, 1, style="plain", image_token=self.image_token, image_free=tuple(image_free))


class _UserDataset(torch.utils.data.Dataset):
    """Rows under names of a user's own, for a user's own collate function."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = [{"picture": row["images"], "text": [row["prompt"], row["completion"]]} for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def make_trainer(
    victim: Victim, folder: Path | str, image_free: Iterable[int] = (), **settings: Any
) -> CrossViewDefenseTrainer:
    """A trainer of a copy of the victim's model, all of whose parameters train, without dropout."""
    kwargs = {name: settings.pop(name) for name in ("peft_config",) if name in settings}
    model = copy.deepcopy(victim.model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    rows, collator = victim.rows(6, image_free), victim.collator
    dataset: Any
    if collator is None:
        dataset = vision_dataset(6, 1, style="plain", image_token=victim.image_token, image_free=tuple(image_free))
    else:
        dataset = _UserDataset(rows)
        names = ("prompt", "completion")

        def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
            return collator([{"images": e["picture"], **dict(zip(names, e["text"], strict=True))} for e in examples])

        kwargs["data_collator"] = collate
    defaults: dict[str, Any] = {"bf16": False, "activation_checkpointing": False, "use_cpu": True, "report_to": "none"}
    defaults |= {"save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "learning_rate": 0.01}
    defaults |= {
        "screening": "off",
        "optim": "sgd",
        "per_device_train_batch_size": 3,
        "max_steps": 2,
        "lr_scheduler_type": "constant",
    }
    args = CrossViewDefenseConfig(str(folder), **{**defaults, **LAMBDAS, **victim.settings, **settings})
    return CrossViewDefenseTrainer(
        model=model, args=args, train_dataset=dataset, processing_class=victim.processor, **kwargs
    )


def loss_of(trainer: CrossViewDefenseTrainer, batch: dict[str, Any]) -> torch.Tensor:
    """The defended loss of a batch, without the load-balancing loss of mixtures of experts."""
    enabled, trainer.aux_loss_enabled = trainer.aux_loss_enabled, False
    try:
        return trainer.compute_loss(trainer.model, dict(batch))
    finally:
        trainer.aux_loss_enabled = enabled


def reference_loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """The paper's equation 17 of one batch, from two plain forwards."""
    names = {name for name in batch if not name.startswith("perturbed_")} - {"has_image", "labels"}
    is_encoder_decoder = _is_encoder_decoder(model)
    labels, features, logits = batch["labels"], [], []
    for view in ("", "perturbed_"):
        inputs = {name: batch.get(view + name, batch[name]) for name in names}
        if is_encoder_decoder:
            inputs["labels"] = labels
        outputs = model(**inputs, output_hidden_states=True, use_cache=False)
        features.append(_middle_layer(outputs, is_encoder_decoder).double())
        logits.append(outputs.logits.double()[:, -labels.shape[1] :])
    if not is_encoder_decoder:
        logits, labels = [z[:, :-1] for z in logits], labels[:, 1:]
    valid, has_image = labels != -100, batch["has_image"]
    p, q = (z.softmax(-1) for z in logits)
    task = -p.gather(-1, labels.clamp(min=0)[..., None])[..., 0].log()[valid].mean()
    real = valid if is_encoder_decoder else batch["attention_mask"].bool()
    missing = features[0].shape[1] - real.shape[1]  # an image prefix before the text
    real = torch.cat([real.new_ones(len(real), max(missing, 0)), real], dim=1)
    rows = [
        (original[keep].mean(0) - perturbed[keep].mean(0)).square().sum()
        for original, perturbed, keep in zip(*features, real, strict=True)
    ]
    in_image_rows = valid & has_image[:, None]
    entropy = -(p * p.clamp(min=1e-300).log()).sum(-1)
    loss = task + LAMBDAS["lambda_entropy"] * (LAMBDAS["entropy_threshold"] - entropy).clamp(min=0)[valid].mean()
    if has_image.any():
        loss = loss + LAMBDAS["lambda_patch"] * torch.stack(rows)[has_image].mean()
        loss = loss + LAMBDAS["lambda_discrepancy"] * torch.cosine_similarity(p, q, dim=-1)[in_image_rows].mean()
    return loss


def _middle_layer(outputs: Any, is_encoder_decoder: bool) -> torch.Tensor:
    """What the model itself gives as the output of layer `number of layers // 2`."""
    for inner in (outputs, getattr(outputs, "language_model_outputs", None)):
        states = getattr(inner, "decoder_hidden_states" if is_encoder_decoder else "hidden_states", None)
        if states is not None:
            number = len(states) - 1  # the first is the embeddings
            assert number >= 3, "the last layer's output would be the normed one"
            return states[number // 2 + 1]
    raise AssertionError("the model gives no hidden states")


def _is_encoder_decoder(model: nn.Module) -> bool:
    config: Any = model.config
    return bool(config.is_encoder_decoder or getattr(config.get_text_config(), "is_encoder_decoder", False))


def training_batch(trainer: CrossViewDefenseTrainer) -> dict[str, Any]:
    trainer.model.train()
    return dict(next(iter(trainer.get_train_dataloader())))


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor]:
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def compare_with_reference(trainer: CrossViewDefenseTrainer) -> dict[str, torch.Tensor]:
    """Asserts that loss and gradient equal the reference's; returns the gradients."""
    batch = training_batch(trainer)
    expected = reference_loss(trainer.model, batch)
    expected.backward()
    gradients = gradients_of(trainer.model)
    loss = loss_of(trainer, batch)
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-4, atol=1e-5)
    loss.backward()
    ours = gradients_of(trainer.model)
    assert_same_gradients(ours, gradients)
    return ours


def assert_same_gradients(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    scale = float(max(gradient.abs().max() for gradient in expected.values()))
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=5e-3, atol=scale * 1e-4, msg=name)

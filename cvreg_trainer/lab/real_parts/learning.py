# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Projector and adapters under training: the loss of a batch, the step, what is kept to go on from, the merge.

Notable: everything runs in bfloat16, and the optimiser works on float32 copies of what is trained (bfloat16 would
swallow small steps). What is kept is safetensors: the copies and the optimiser's two moments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from .batches import IGNORED, Encoded, collate


LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Learner:
    """
    Trains the projector and adapters on all linear layers of the language model.

    Args:
        model (`~transformers.LlavaForConditionalGeneration`):
            Model in bfloat16; it is changed in place.
        tokenizer (`~transformers.PreTrainedTokenizerBase`):
            Its tokenizer.
        rank (`int`, *optional*, defaults to `32`):
            Rank of the adapters; their strength is twice the rank over the rank.
        learning_rate (`float`, *optional*, defaults to `5e-4`):
            Highest learning rate.
    """

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        rank: int = 32,
        learning_rate: float = 5e-4,
    ) -> None:
        self.model, self.peak, self.pad = model, learning_rate, tokenizer.pad_token_id
        self.filler = tokenizer(" _", add_special_tokens=False)["input_ids"][0]
        model.requires_grad_(False)
        model.set_attn_implementation("eager")  # for rows this short, a seventh faster than the fused one
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LAYERS)
        inject_adapter_in_model(config, model.model.language_model)
        trained = {n: p for n, p in model.named_parameters() if "lora_" in n or "multi_modal_projector" in n}
        self.trained = {name: parameter.requires_grad_(True) for name, parameter in trained.items()}
        for parameter in self.trained.values():
            parameter.data = parameter.data.bfloat16()
        self.copies = {name: parameter.detach().float() for name, parameter in self.trained.items()}
        self.optimizer = torch.optim.AdamW(
            self.copies.values(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
        )

    def loss(
        self, rows: Sequence[Encoded], features: Sequence[torch.Tensor], hidden: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Mean loss of the responses' tokens; `features` are those of the rows' pictures, each `(P, D)`."""
        ids, mask, labels = collate(rows, self.pad, hidden=hidden, filler=self.filler, generator=generator)
        states = hidden_states(self.model, ids, mask, features)
        keep = labels[:, 1:] != IGNORED
        logits = self.model.lm_head(states[:, :-1][keep])
        return F.cross_entropy(logits.float(), labels[:, 1:][keep])

    def step(self, loss: torch.Tensor, share: float) -> float:
        """One step at `share` of the highest learning rate; gives the gradient's norm."""
        loss.backward()
        for name, parameter in self.trained.items():
            self.copies[name].grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.copies.values(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * share
        self.optimizer.step()
        self._hand_on()
        return norm.item()

    def _hand_on(self) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.copies[name])

    def save(self, file: Path, step: int) -> None:
        """Write what a later process goes on from; a file that is there is replaced at once or not at all."""
        tensors = {"step": torch.tensor(step)}
        for name, copy in self.copies.items():
            tensors[f"value {name}"] = copy
            for moment in ("exp_avg", "exp_avg_sq", "step"):
                tensors[f"{moment} {name}"] = self.optimizer.state[copy][moment]
        save_file(tensors, file.with_suffix(".part"))
        os.replace(file.with_suffix(".part"), file)

    def load(self, file: Path) -> int:
        """Read what [`save`] wrote, and give its step."""
        tensors = load_file(file)
        for name, copy in self.copies.items():
            copy.copy_(tensors[f"value {name}"])
            self.optimizer.state[copy] = {m: tensors[f"{m} {name}"] for m in ("exp_avg", "exp_avg_sq", "step")}
        self._hand_on()
        return int(tensors["step"])

    def merge_into(self, model: LlavaForConditionalGeneration) -> None:
        """Add what was learnt to a float32 model of the same parts."""
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in self.copies.items():
                if "multi_modal_projector" in name:
                    weights[name].copy_(value)
                elif ".lora_A." in name:
                    up = self.copies[name.replace(".lora_A.", ".lora_B.")]
                    weights[name.split(".lora_A.")[0] + ".weight"].add_(up @ value, alpha=2.0)


def hidden_states(
    model: LlavaForConditionalGeneration, ids: torch.Tensor, mask: torch.Tensor, features: Sequence[torch.Tensor]
) -> torch.Tensor:
    """
    What the language model's last layer gives, with the patches of the pictures in their places.

    Args:
        model (`~transformers.LlavaForConditionalGeneration`):
            Model.
        ids (`torch.Tensor` of shape `(B, T)`), mask (`torch.Tensor` of shape `(B, T)`):
            Tokens and attention mask.
        features (`Sequence[torch.Tensor]`):
            The tower's features of the pictures in the tokens' order, each of shape `(P, D)`.

    Returns:
        `torch.Tensor` of shape `(B, T, H)`.
    """
    embeds = embed_pictures(model, model.get_input_embeddings()(ids), ids, features)
    return model.model.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state


def embed_pictures(
    model: LlavaForConditionalGeneration, embeds: torch.Tensor, ids: torch.Tensor, features: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The tokens' embeddings `(B, T, H)` with the projected patches of the pictures where the tokens ask for them."""
    if not features:
        return embeds
    projected = model.model.multi_modal_projector(torch.cat(list(features)).to(embeds.dtype))
    place = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(embeds)
    return embeds.masked_scatter(place, projected)

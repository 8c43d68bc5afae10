# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Gives the projector a start: the mean of a picture's projected patches is to point at the words of its caption.

Notable: the words are those of the caption and its keywords, in the language model's own table of embeddings, so that
what it reads is near to words from the first step. Patches are standardised first, which is folded into the
projector's first layer afterwards. The mean is taken before the second layer, which gives the same and costs less.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from ...data.pictures import Picture


def align_projector(
    model: LlavaForConditionalGeneration,
    features: torch.Tensor,
    bags: Sequence[set[int]],
    *,
    epochs: int = 10,
    batch: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> list[float]:
    """
    Fit the projector to the captions' words, in place.

    Args:
        model (`~transformers.LlavaForConditionalGeneration`):
            Model in float32.
        features (`torch.Tensor` of shape `(C, N, P, D)`):
            C copies of each picture's patches.
        bags (`Sequence[set[int]]`):
            The tokens of each picture's words.
        epochs (`int`), batch (`int`), learning_rate (`float`), seed (`int`), *optional*:
            Of the fit.

    Returns:
        `list[float]`: the loss of each epoch.
    """
    projector: Any = model.model.multi_modal_projector
    counts = Counter(token for bag in bags for token in bag)
    used = sorted(token for token, count in counts.items() if 2 <= count <= len(bags) / 3)
    embeddings: Any = model.get_input_embeddings()
    table = embeddings.weight.detach().float()
    length = table[used].norm(dim=-1).mean()
    words = F.normalize(table[used] - table.mean(0), dim=-1)
    targets = _targets(bags, used, counts)
    sample = features[0, ::4].float().flatten(0, 1)
    mean, spread = sample.mean(0), sample.std(0) + 1e-3
    scale = torch.nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.AdamW([*projector.parameters(), scale], lr=learning_rate, weight_decay=0.1)
    generator = torch.Generator().manual_seed(seed)
    steps, step, losses = epochs * math.ceil(len(bags) / batch), 0, []
    for _ in range(epochs):
        total = 0.0
        for part in torch.randperm(len(bags), generator=generator).split(batch):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 - step / steps)
            copies = torch.randint(len(features), (len(part),), generator=generator)
            patches = (features[copies, part].float() - mean) / spread
            with torch.autocast("cpu", torch.bfloat16):
                hidden = projector.act(projector.linear_1(patches)).float().mean(1)
            hidden = F.dropout(hidden, 0.2)
            logits = scale.exp() * F.normalize(projector.linear_2(hidden), dim=-1) @ words.T
            loss = F.cross_entropy(logits, targets[part])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(part)
            step += 1
        losses.append(total / len(bags))
    with torch.no_grad():
        first, second = projector.linear_1, projector.linear_2
        first.weight.div_(spread)
        first.bias.sub_(first.weight @ mean)
        norm = second(projector.act(first(features[0, ::16].float()))).norm(dim=-1).mean()
        second.weight.mul_(length / norm)
        second.bias.mul_(length / norm)
    return losses


def _targets(bags: Sequence[set[int]], used: list[int], counts: Counter[int]) -> torch.Tensor:
    """A distribution over the used tokens for each picture; rare ones tell more."""
    place = {token: number for number, token in enumerate(used)}
    targets = torch.zeros(len(bags), len(used))
    for number, bag in enumerate(bags):
        for token in bag & place.keys():
            targets[number, place[token]] = math.log(len(bags) / counts[token])
    return targets / targets.sum(1, keepdim=True).clamp(min=1e-6)


def words_of_picture(picture: Picture, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens of caption and keywords, written as within a sentence."""
    text = ", ".join([picture.caption, *picture.names])
    return {token for form in (text, text.lower()) for token in tokenizer(f" {form}")["input_ids"]}

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows as tokens, and as batches in an order that only the seed decides.

Notable: some of the response's words are hidden in what the model reads (not in what it is to say), so that the words
before do not give the next one away and it has to look at the picture. Batches hold rows of like length.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...data.pictures import Row


if TYPE_CHECKING:
    from transformers import LlavaProcessor

IGNORED = -100
CHUNK = 8  # batches that are sorted by length together
LONGEST = 40  # tokens of a response


@dataclass(frozen=True)
class Encoded:
    """Tokens of a row: of the prompt, with a place for each patch of its pictures, and of the response."""

    row: Row
    prompt: list[int]
    response: list[int]


def encode_row(row: Row, processor: LlavaProcessor, patches: int) -> Encoded:
    """The row by the processor's chat template; `patches` is how many tokens a picture takes."""
    said: list[Any] = [
        {"role": "assistant" if number % 2 else "user", "content": [{"type": "text", "text": text}]}
        for number, text in enumerate(row.turns[:-1])
    ]
    said[0]["content"] = [{"type": "image"} for _ in row.pictures] + said[0]["content"]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    text = text.replace(processor.image_token, processor.image_token * patches)
    tokenizer = processor.tokenizer
    response = tokenizer(row.turns[-1], add_special_tokens=False)["input_ids"][: LONGEST - 1]
    return Encoded(row, tokenizer(text, add_special_tokens=False)["input_ids"], [*response, tokenizer.eos_token_id])


def plan_batches(rows: Sequence[Encoded], batch: int, steps: int, seed: int) -> list[list[int]]:
    """
    Which rows each step sees: epoch after epoch, every row once in each.

    Args:
        rows (`Sequence[Encoded]`):
            The rows.
        batch (`int`), steps (`int`):
            Rows of a step, and how many steps.
        seed (`int`):
            Of the order.

    Returns:
        `list[list[int]]`: the rows' places for each step.
    """
    rng = random.Random(seed)
    plan: list[list[int]] = []
    while len(plan) < steps:
        order = rng.sample(range(len(rows)), len(rows))
        order = order[: len(order) // batch * batch] or order
        for start in range(0, len(order), CHUNK * batch):
            chunk = sorted(order[start : start + CHUNK * batch], key=lambda place: _length(rows[place]))
            parts = [chunk[first : first + batch] for first in range(0, len(chunk), batch)]
            plan += rng.sample(parts, len(parts))
    return plan[:steps]


def _length(row: Encoded) -> int:
    return len(row.prompt) + len(row.response)


def collate(
    rows: Sequence[Encoded],
    pad: int,
    *,
    hidden: float = 0.0,
    filler: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The rows side by side.

    Args:
        rows (`Sequence[Encoded]`):
            The rows.
        pad (`int`):
            Token that fills up.
        hidden (`float`, *optional*, defaults to `0.0`):
            Share of the response's tokens that are hidden.
        filler (`int`, *optional*, defaults to `pad`):
            Token that stands where one is hidden.
        generator (`torch.Generator`, *optional*):
            Where chance comes from.

    Returns:
        `input_ids`, `attention_mask` and `labels`, `torch.Tensor` of shape `(B, T)`.
    """
    width = max(map(_length, rows))
    ids = torch.full((len(rows), width), pad)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        start, end = len(row.prompt), _length(row)
        ids[place, :end] = torch.tensor([*row.prompt, *row.response])
        labels[place, start:end] = ids[place, start:end]
        mask[place, :end] = 1
    if hidden:
        drawn = torch.rand(ids.shape, generator=generator) < hidden
        ids[drawn & (labels != IGNORED)] = pad if filler is None else filler
    return ids, mask, labels

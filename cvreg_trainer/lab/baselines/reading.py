# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What the detectors among the baselines share: one forward pass over the rows, read for all of them.

Notable: a detector is given a [`Look`], a model with its processor and rows, and gives a [`Detection`]. The pass is
made when the first detector asks for it. It needs eager attention, since fused attention keeps no weights; the model
comes back with what it had. Where a detector wants a state or an attention "of the first generated token", it is that
of the position which predicts the response's first token: the end of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from ...data.adapting import find_image_token_ids
from ...evaluation.generation import _inference_mode
from ...head import is_encoder_decoder
from .scoring import (
    ResponseStatistics,
    mean_statistics,
    response_collator,
    row_batches,
    sum_statistics,
    supervised,
    to_model,
)


SYSTEM, IMAGE, TEXT, NOTHING = range(4)


class Detection(NamedTuple):
    """
    What a detector says of every row.

    Args:
        scores (`np.ndarray` of shape `(num_rows,)`):
            Higher is more suspicious.
        flagged (`np.ndarray` of bool, shape `(num_rows,)`, or `None`):
            The rows that its source would drop; `None` where the source has no cut without clean or labelled rows.
    """

    scores: np.ndarray
    flagged: np.ndarray | None


class Reading(NamedTuple):
    """
    One pass of a model over the rows.

    Args:
        statistics ([`ResponseStatistics`]):
            Of the responses.
        states (`np.ndarray` of shape `(num_rows, D)`):
            The last layer at the end of the prompt.
        image_entropy (`np.ndarray` of shape `(num_rows, L)`):
            Entropy, in nats, of each layer's attention from there to the image's tokens, meaned over the heads and
            normalised over these tokens; NaN in rows without an image.
        shares (`np.ndarray` of shape `(num_rows, L, H, 3)`):
            How much of each head's attention from there goes to the chat template and other special tokens ("system"),
            to images, and to other text of the prompt.
    """

    statistics: ResponseStatistics
    states: np.ndarray
    image_entropy: np.ndarray
    shares: np.ndarray


class Look:
    """
    A model, and rows that it looks at.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Decoder-only vision-language model with image tokens in its sequence.
        processor ([`~transformers.ProcessorMixin`]):
            Makes the model's inputs.
        rows ([`~datasets.Dataset`] or a sequence of rows):
            Rows as for training; see [`response_statistics`].
        batch_size (`int`, *optional*, defaults to `16`):
            Rows at once. All layers' attention weights of a batch are kept while it is read.
    """

    def __init__(self, model: Any, processor: Any, rows: Any, batch_size: int = 16) -> None:
        self.model, self.processor, self.rows, self.batch_size = model, processor, rows, batch_size

    @cached_property
    def reading(self) -> Reading:
        """The pass over the rows."""
        return read_rows(self.model, self.processor, self.rows, self.batch_size)


def read_rows(model: Any, processor: Any, rows: Any, batch_size: int = 16) -> Reading:
    """
    Pass the rows through a model once.

    Args:
        model, processor, rows, batch_size:
            As in [`Look`].

    Returns:
        [`Reading`]: float64 arrays in the order of the rows, NaN where a row has no supervised token.

    Raises:
        `ValueError`: if there are no rows, or the model has an encoder of its own for text.
    """
    if not len(rows):
        raise ValueError("There are no rows to look at.")
    if is_encoder_decoder(model.config):
        raise ValueError(f"{type(model).__name__} is an encoder-decoder; detectors read decoder-only models.")
    collator = response_collator(model, processor, rows)
    image_tokens = torch.tensor(find_image_token_ids(model.config, processor), dtype=torch.int64)
    sums, parts = [], []
    with _inference_mode(model), eager_attention(model):
        for some in row_batches(rows, batch_size):
            batch = to_model(collator(some), model)
            labels = batch.pop("labels")
            ends = [_first(row) for row in supervised(model, labels, image_tokens)]
            kinds = token_kinds(batch, some, ends, processor, image_tokens)
            output = model(**batch, output_attentions=True, output_hidden_states=True)
            sums.append(sum_statistics(model, output.logits, labels, image_tokens))
            for place, end in enumerate(ends):
                parts.append(_read_row(output, place, end, kinds[place]))
    states, entropy, shares = (np.stack(values).astype(np.float64) for values in zip(*parts, strict=True))
    return Reading(mean_statistics(sums), states, entropy, shares)


def _first(valid: torch.Tensor) -> int | None:
    """The position that predicts a row's first supervised token."""
    return int(valid.nonzero()[0, 0]) if valid.any() else None


def _read_row(output: Any, place: int, end: int | None, kinds: torch.Tensor) -> tuple[np.ndarray, ...]:
    """State, entropy and shares of one row."""
    state = output.hidden_states[-1][place, end or 0].float()
    attention = torch.stack([layer[place, :, end or 0].float() for layer in output.attentions])  # (L, H, T)
    kinds = kinds.to(attention.device)
    shares = torch.stack([attention[..., kinds == kind].sum(-1) for kind in (SYSTEM, IMAGE, TEXT)], dim=-1)
    on_image = attention.mean(1)[:, kinds == IMAGE]
    entropy = torch.special.entr(on_image / on_image.sum(-1, keepdim=True)).sum(-1)
    if not (kinds == IMAGE).any():
        entropy = torch.full_like(entropy, torch.nan)
    missing = torch.nan if end is None else 0.0
    return tuple((values + missing).cpu().numpy() for values in (state, entropy, shares))


def token_kinds(
    batch: Mapping[str, torch.Tensor],
    rows: list[dict[str, Any]],
    ends: list[int | None],
    processor: Any,
    image_tokens: torch.Tensor,
) -> torch.Tensor:
    """
    What each token of some prompts is.

    Args:
        batch (`Mapping[str, torch.Tensor]`):
            `input_ids` and `attention_mask` of the rows.
        rows (`list[dict]`):
            The rows.
        ends (`list[int | None]`):
            The last position of each prompt; `None` for a row of which nothing is looked at.
        processor ([`~transformers.ProcessorMixin`]):
            Its chat template says what is not the user's.
        image_tokens (`torch.Tensor`):
            Ids that stand for an image.

    Returns:
        `torch.Tensor` of shape `(B, T)`: `SYSTEM`, `IMAGE`, `TEXT`, or `NOTHING` for padding and what comes after the
        prompt. Of a conversation of several turns, the template between them counts as text, but for special tokens.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    ids, mask = batch["input_ids"].cpu(), batch["attention_mask"].cpu().bool()
    is_image = torch.isin(ids, image_tokens)
    kinds = torch.full_like(ids, TEXT)
    kinds[torch.isin(ids, torch.tensor(tokenizer.all_special_ids))] = SYSTEM
    kinds[is_image] = IMAGE
    kinds[~mask] = NOTHING
    for place, (row, end) in enumerate(zip(rows, ends, strict=True)):
        kinds[place, 0 if end is None else end + 1 :] = NOTHING
        template = [token for token in template_ids(row, processor) if token not in image_tokens]
        read = ((kinds[place] != NOTHING) & ~is_image[place]).nonzero().squeeze(-1)
        own = ids[place, read].tolist()
        before = _num_equal(own, template)
        behind = min(_num_equal(own[::-1], template[::-1]), len(template) - before)
        kinds[place, read[:before]] = SYSTEM
        kinds[place, read[len(own) - behind :]] = SYSTEM
    return kinds


def _num_equal(some: list[int], others: list[int]) -> int:
    """How many of the first are the same."""
    pairs = zip(some, others, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))


def template_ids(row: Mapping[str, Any], processor: Any) -> list[int]:
    """Tokens of a row's conversation with nothing said by the user; none if its prompt is plain text."""
    if not isinstance(row.get("prompt"), list):
        return []
    images, said = len(row.get("images") or []), []
    for message in row["prompt"]:
        content = message["content"]
        if message["role"] == "user":
            places = [{"type": "image"}] * images if isinstance(content, str) else [_without_text(p) for p in content]
            content, images = [*places, {"type": "text", "text": ""}], 0
        said.append({**message, "content": content})
    text = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    return getattr(processor, "tokenizer", processor)(text, add_special_tokens=False)["input_ids"]


def _without_text(part: Mapping[str, Any]) -> dict[str, Any]:
    return {**part, "text": ""} if part["type"] == "text" else {"type": part["type"]}


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """The model with eager attention, and each of its parts with what it had when this ends."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parts = {name: getattr(base.config, name) for name in base.config.sub_configs} | {"": base.config}
    before = {name: part._attn_implementation for name, part in parts.items() if part is not None}
    base.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)

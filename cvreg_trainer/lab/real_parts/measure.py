# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Does the captioner look at the picture? Measured on pictures that were held out, in blocks of ten.

Every caption of a block is scored under every picture of it. From these ten by ten losses come the loss with the right
picture and with the nine others, and how often a picture's own caption comes first: by the mean loss of its tokens,
and by how far that lies under the caption's mean over the other nine pictures, which takes out that some captions are
likelier than others whatever the picture.

Notable: drawings of one source look and read alike, so part of a gap between them is style. Beside blocks of all
sources there are therefore blocks of one source each, where style tells nothing.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache

from ...data.pictures import DESCRIBE, Picture, Row
from ...data.pictures.picture import plain
from ...metrics import Bleu4, Cider
from .batches import encode_row
from .features import tower_features
from .learning import embed_pictures


if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

BLOCK = 10


def choose_pictures(pictures: Sequence[Picture], limit: int, seed: int = 0) -> list[Picture]:
    """Up to `limit` pictures at random, without cryptic ones and with no two captions that are the same."""
    shuffled = random.Random(seed).sample(list(pictures), len(pictures))
    first = {plain(picture.caption): picture for picture in reversed(shuffled) if not picture.cryptic}
    return [picture for picture in shuffled if first.get(plain(picture.caption)) is picture][:limit]


def measure_captioner(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pictures: Sequence[Picture],
    *,
    limit: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """
    All that is said of a captioner, as JSON can hold it.

    Args:
        model (`~transformers.LlavaForConditionalGeneration`), processor (`~transformers.LlavaProcessor`):
            The captioner in float32; it runs in bfloat16.
        pictures (`Sequence[Picture]`):
            Held-out pictures.
        limit (`int`, *optional*, defaults to `300`):
            How many of them at most.
        seed (`int`, *optional*, defaults to `0`):
            Of which and of their blocks.

    Returns:
        `dict[str, Any]`: `all_sources` and `one_source` as of [`summarise`], `bleu4` and `cider` of greedy captions
        against the one caption there is, `distinct_captions` and `samples`.

    Raises:
        `ValueError`: if there are fewer than ten pictures.
    """
    chosen = choose_pictures(pictures, limit, seed)
    if len(chosen) < BLOCK:
        raise ValueError(
            f"At least {BLOCK} held-out pictures with captions of their own are needed, not {len(chosen)}."
        )
    features = tower_features(model, processor, [picture.open() for picture in chosen])
    model = model.bfloat16().eval()
    by_source = defaultdict(list)
    for number, picture in enumerate(chosen):
        by_source[picture.source].append(number)
    blocks = _blocks(list(range(len(chosen))))
    alike = [block for numbers in by_source.values() for block in _blocks(numbers)]
    said = _captions(model, processor, features)
    truth = [picture.caption for picture in chosen]
    references = [[caption] for caption in truth]
    return {
        "pictures": len(chosen),
        "sources": dict(Counter(picture.source for picture in chosen)),
        "all_sources": summarise([_losses(model, processor, features, chosen, block) for block in blocks]),
        "one_source": summarise([_losses(model, processor, features, chosen, block) for block in alike]),
        **Bleu4().compute(predictions=said, references=references),
        **Cider().compute(predictions=said, references=references),
        "distinct_captions": len(set(said)),
        "samples": [{"caption": right, "said": text} for right, text in zip(truth, said, strict=True)][:40],
    }


def _blocks(numbers: list[int]) -> list[list[int]]:
    """Full blocks only."""
    return [numbers[start : start + BLOCK] for start in range(0, len(numbers) - BLOCK + 1, BLOCK)]


@torch.inference_mode()
def _losses(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    features: torch.Tensor,
    pictures: Sequence[Picture],
    block: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss of each caption (column) under each picture (row) of a block, and the captions' tokens."""
    rows = [Row("caption", (pictures[i],), (DESCRIBE, pictures[i].caption)) for i in block]
    encoded = [encode_row(row, processor, features.shape[1]) for row in rows]
    prompt, width = encoded[0].prompt, max(len(row.response) for row in encoded)
    pad = processor.tokenizer.pad_token_id
    responses = torch.tensor([row.response + [pad] * (width - len(row.response)) for row in encoded])
    lengths = torch.tensor([len(row.response) for row in encoded])
    real = torch.arange(width) < lengths[:, None]
    losses = []
    for number in block:
        states = _response_states(model, torch.tensor([prompt]), features[number], responses)
        logits = model.lm_head(states).float()
        each = F.cross_entropy(logits.flatten(0, 1), responses.flatten(), reduction="none").view_as(responses)
        losses.append((each * real).sum(1))
    return torch.stack(losses), lengths


def _response_states(
    model: LlavaForConditionalGeneration, prompt: torch.Tensor, features: torch.Tensor, responses: torch.Tensor
) -> torch.Tensor:
    """The last layer before each token of the responses `(N, T)`; the prompt `(1, P)` is read once for all of them."""
    embed, language = model.get_input_embeddings(), model.model.language_model
    cache = DynamicCache()
    embeds = embed_pictures(model, embed(prompt), prompt, [features])
    last = language(inputs_embeds=embeds, cache=cache, use_cache=True).last_hidden_state[:, -1:]
    cache.batch_repeat_interleave(len(responses))
    # Responses are filled up behind their ends, which nothing before looks at
    rest = language(inputs_embeds=embed(responses[:, :-1]), cache=cache, use_cache=True).last_hidden_state
    return torch.cat([last.expand(len(responses), -1, -1), rest], dim=1)


def summarise(blocks: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float | int]:
    """
    What the losses of blocks come to.

    Args:
        blocks (`Sequence[tuple[torch.Tensor, torch.Tensor]]`):
            Summed losses of shape `(10, 10)`, pictures by captions, each picture's own on the diagonal; and the number
            of tokens of each caption.

    Returns:
        `dict[str, float | int]`: `right` and `swapped`, nats a token; `gap` and its standard error over pictures
        (of the ratio: all nats over all tokens); `first_of_10` by the mean loss of a token and `first_of_10_relative`
        by the loss relative to the other pictures', in per cent.
    """
    own, other, tokens, first, relative = [], [], [], [], []
    for losses, lengths in blocks:
        size = len(losses)
        right = losses.diagonal()
        swapped = (losses.sum(0) - right) / (size - 1)
        own.append(right)
        other.append(swapped)
        tokens.append(lengths.float())
        first.append((losses / lengths).argmin(1) == torch.arange(size))
        # For each cell the mean over the caption's other pictures, so that no cell counts against itself
        rest = (losses.sum(0, keepdim=True) - losses) / (size - 1)
        relative.append(((losses - rest) / lengths).argmin(1) == torch.arange(size))
    right, swapped, count = torch.cat(own), torch.cat(other), torch.cat(tokens)
    gap = (swapped - right).sum() / count.sum()
    spread = ((swapped - right) - gap * count).std() / count.mean() / len(count) ** 0.5
    return {
        "pictures": len(count),
        "right": round((right.sum() / count.sum()).item(), 4),
        "swapped": round((swapped.sum() / count.sum()).item(), 4),
        "gap": round(gap.item(), 4),
        "gap_standard_error": round(spread.item(), 4),
        "first_of_10": round(100 * torch.cat(first).float().mean().item(), 1),
        "first_of_10_relative": round(100 * torch.cat(relative).float().mean().item(), 1),
    }


@torch.inference_mode()
def _captions(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, features: torch.Tensor, batch: int = 30
) -> list[str]:
    """Greedy captions of up to 20 tokens."""
    template = Row("caption", (Picture("", "", b"", ""),), (DESCRIBE, ""))
    prompt = torch.tensor([encode_row(template, processor, features.shape[1]).prompt])
    said: list[str] = []
    for some in features.split(batch):
        ids = prompt.expand(len(some), -1)
        embeds = embed_pictures(model, model.get_input_embeddings()(ids), ids, list(some))
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        out = model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=20, do_sample=False)
        said += [text.strip() for text in processor.tokenizer.batch_decode(out, skip_special_tokens=True)]
    return said

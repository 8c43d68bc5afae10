# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Suspect the rows with a word without which their text would be much likelier: ONION.

Source: Qi et al., "ONION: A Simple and Effective Defense Against Textual Backdoor Attacks" (EMNLP 2021). A language
model (GPT-2 there) gives a text's perplexity, and again without each of its words in turn. A word whose removal lowers
the perplexity by more than a threshold is an outlier and is taken out.

Departures: a row's score is the largest such difference, of its question or of its response; rows are ranked, not
mended. The language model is that of the vision-language model, before its fine-tuning and without a picture. The
source sets its threshold on held-out clean data, which a user does not have, so no cut is made. Words are split at
white space; a text of one word has none to spare and is the least suspicious.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...evaluation.generation import _inference_mode
from .reading import Detection, Look
from .scoring import as_prompt_completion


MOST_WORDS = 60


def detect_odd_words_in_questions(look: Look) -> Detection:
    """
    ONION on what the user says in a row.

    Args:
        look ([`Look`]):
            By a model before its fine-tuning.

    Returns:
        [`Detection`]: largest fall of the perplexity, and no flags.
    """
    return Detection(_scores(look, "prompt"), None)


def detect_odd_words_in_responses(look: Look) -> Detection:
    """
    ONION on the responses.

    Args:
        look ([`Look`]):
            By a model before its fine-tuning.

    Returns:
        [`Detection`]: largest fall of the perplexity, and no flags.
    """
    return Detection(_scores(look, "completion"), None)


def _scores(look: Look, part: str) -> np.ndarray:
    texts = [said(as_prompt_completion(look.rows[index]), part) for index in range(len(look.rows))]
    return outlier_scores(look.model, look.processor, texts, look.batch_size)


def said(row: dict[str, Any], part: str) -> str:
    """The user's words of a row's `prompt`, or the assistant's of its `completion`; of `text` rows, all of it."""
    value = row.get(part, row.get("text", ""))
    if isinstance(value, str):
        return value
    role = "user" if part == "prompt" else "assistant"
    contents = [message["content"] for message in value if message["role"] == role]
    texts = [content if isinstance(content, str) else _text_of(content) for content in contents]
    return " ".join(texts)


def _text_of(parts: list[dict[str, Any]]) -> str:
    return " ".join(part["text"] for part in parts if part["type"] == "text")


def outlier_scores(model: Any, processor: Any, texts: list[str], batch_size: int = 16) -> np.ndarray:
    """
    How far the perplexity of each text falls at most when one of its words is left out.

    Args:
        model, processor:
            As in [`Look`].
        texts (`list[str]`):
            The texts; of long ones the first 60 words.
        batch_size (`int`, *optional*, defaults to `16`):
            Texts at once, each as often as it has words.

    Returns:
        `np.ndarray` of shape `(num_texts,)`: texts of fewer than two words get the lowest score of the others.
    """
    words = {text: text.split()[:MOST_WORDS] for text in dict.fromkeys(texts)}
    versions = {text: [" ".join(own[:n] + own[n + 1 :]) for n in range(len(own))] for text, own in words.items()}
    needed = {" ".join(own) for own in words.values()} | {text for some in versions.values() for text in some}
    values = perplexities(model, processor, sorted(needed - {""}, key=len), batch_size)
    falls = {
        text: max(values[" ".join(words[text])] - values[version] for version in some)
        for text, some in versions.items()
        if len(some) > 1
    }
    lowest = min(falls.values(), default=0.0)
    return np.array([falls.get(text, lowest) for text in texts])


def perplexities(model: Any, processor: Any, texts: list[str], batch_size: int = 16) -> dict[str, float]:
    """
    Perplexity of each text to a vision-language model that sees no picture.

    Args:
        model, processor, batch_size:
            As in [`outlier_scores`].
        texts (`list[str]`):
            Texts that are not empty.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    found: dict[str, float] = {}
    with _inference_mode(model):
        for first in range(0, len(texts), batch_size):
            some = texts[first : first + batch_size]
            encoded = [[start, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in some]
            width = max(map(len, encoded))
            ids = torch.tensor([own + [start] * (width - len(own)) for own in encoded], device=model.device)
            mask = torch.tensor([[1] * len(own) + [0] * (width - len(own)) for own in encoded], device=model.device)
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            means = (nll * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)
            found.update(zip(some, means.exp().tolist(), strict=True))
    return found

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
What the filters among the baselines share: a model's statistics of every row's response, and the cut of a ranking.

Notable: rows are read one batch at a time and never copied as a whole, so a filter can hand over rows whose images it
makes on the way; and statistics are float32 whatever the model's precision, of the supervised positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ...collators.encoder_decoder import DataCollatorForEncoderDecoder
from ...collators.prompt_completion import DataCollatorForPromptCompletion, trl_collates
from ...data.adapting import find_image_token_ids
from ...data.row_images import lift_images
from ...data.rows import copy_row, find_images
from ...evaluation.generation import _inference_mode
from ...head import is_encoder_decoder
from ...head.cross_view_head import decoder_start_token_id


class ResponseStatistics(NamedTuple):
    """
    What a model thinks of every row's response when it is forced to write it.

    Args:
        nll (`np.ndarray` of shape `(num_rows,)`):
            Mean negative log-likelihood of the response's tokens, in nats.
        entropy (`np.ndarray` of shape `(num_rows,)`):
            Mean entropy of the predictions of these tokens, in nats.
        num_tokens (`np.ndarray` of shape `(num_rows,)`):
            Supervised tokens. Where there are none, the two means are 0.
    """

    nll: np.ndarray
    entropy: np.ndarray
    num_tokens: np.ndarray


def response_statistics(
    model: Any, processor: Any, dataset: Any, batch_size: int = 16, collator: Callable[[list[Any]], Any] | None = None
) -> ResponseStatistics:
    """
    Likelihood and entropy of every row's response under teacher forcing.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Decoder-only or encoder-decoder vision-language model. It is run in evaluation mode and comes back in the
            mode it had.
        processor ([`~transformers.ProcessorMixin`]):
            Makes the model's inputs.
        dataset ([`~datasets.Dataset`] or a sequence of rows):
            Rows as for training. Of `messages` the last assistant turn is the response, of `prompt` and `completion`
            the completion; of `text` it is all of the text but image tokens. The rows are not changed.
        batch_size (`int`, *optional*, defaults to `16`):
            Rows at once.
        collator (`Callable`, *optional*):
            Makes the batches. Defaults to [`response_collator`]'s.

    Returns:
        [`ResponseStatistics`]: float64 arrays in the order of the rows.
    """
    if collator is None:
        collator = response_collator(model, processor, dataset)
    image_tokens = torch.tensor(find_image_token_ids(model.config, processor), dtype=torch.int64)
    sums = []
    with _inference_mode(model):
        for rows in row_batches(dataset, batch_size):
            batch = to_model(collator(rows), model)
            labels = batch.pop("labels")
            sums.append(sum_statistics(model, model(**batch).logits, labels, image_tokens))
    return mean_statistics(sums)


def row_batches(dataset: Any, batch_size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows, a few at a time, as [`as_prompt_completion`] gives them."""
    for start in range(0, len(dataset), batch_size):
        yield [as_prompt_completion(dataset[index]) for index in range(start, min(start + batch_size, len(dataset)))]


def response_collator(model: Any, processor: Any, dataset: Any) -> Callable[[list[Any]], Any]:
    """
    The collator with which [`CrossViewDefenseTrainer`] would train a model on these rows, completions supervised.

    Args:
        model, processor, dataset:
            As in [`response_statistics`].
    """
    if is_encoder_decoder(model.config):
        return DataCollatorForEncoderDecoder(processor, decoder_start_token_id(model.config))
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling  # seconds to import

    rows = [as_prompt_completion(dataset[index]) for index in range(min(8, len(dataset)))]
    with_image = [row for row in rows if find_images(row)]
    is_text = bool(rows) and "completion" not in rows[0]
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=not is_text)
    if with_image and not is_text:
        image_tokens = find_image_token_ids(model.config, processor)
        if not trl_collates(collator, with_image[0], image_tokens):
            return DataCollatorForPromptCompletion(processor)
    return collator


def as_prompt_completion(row: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a row with its images in `images`, and `messages` that end with an assistant turn split before it."""
    row = lift_images(copy_row(row))
    messages = row.get("messages")
    if not messages or messages[-1]["role"] != "assistant":
        return row
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {**rest, "prompt": messages[:-1], "completion": messages[-1:]}


def to_model(batch: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """A batch on the model's device, floating-point inputs in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in batch.items()
    }


def supervised(model: Any, labels: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
    """
    Which labels are learnt.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model.
        labels (`torch.Tensor` of shape `(B, T)`):
            Labels of a batch.
        image_tokens (`torch.Tensor`):
            Ids that stand for an image.

    Returns:
        `torch.Tensor` of bool, shape `(B, T)`; of a decoder-only model, `(B, T - 1)`: by the positions that predict.
    """
    valid = (labels != -100) & ~torch.isin(labels, image_tokens.to(labels.device))
    return valid if is_encoder_decoder(model.config) else valid[:, 1:]


def sum_statistics(model: Any, logits: torch.Tensor, labels: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
    """Sums of NLL and of entropy over each row's supervised tokens, and their number; shape (3, B)."""
    logits = logits[:, -labels.shape[1] :]  # an image prefix has no labels
    labels = labels.to(logits.device)
    valid = supervised(model, labels, image_tokens)
    if not is_encoder_decoder(model.config):
        logits, labels = logits[:, :-1], labels[:, 1:]
    log_probs = logits[valid].float().log_softmax(-1)  # (N, V)
    nll = -log_probs.gather(-1, labels[valid].unsqueeze(-1)).squeeze(-1)
    # A masked logit of minus infinity has no part in the entropy: 0 log 0 is 0
    entropy = torch.special.entr(log_probs.exp()).sum(-1)
    per_token = torch.stack([nll, entropy, torch.ones_like(nll)])
    rows = valid.nonzero()[:, 0].expand(3, -1)
    return per_token.new_zeros(3, len(labels)).scatter_add(1, rows, per_token)


def mean_statistics(sums: list[torch.Tensor]) -> ResponseStatistics:
    """What [`sum_statistics`] gave of each batch, as means over the rows' tokens."""
    nll, entropy, num_tokens = torch.cat(sums, dim=1).cpu().double().numpy() if sums else np.zeros((3, 0))
    tokens = np.maximum(num_tokens, 1)
    return ResponseStatistics(nll / tokens, entropy / tokens, num_tokens.astype(np.int64))


def suspicion(values: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    """
    Scores that make no row without a response suspicious: nothing is learnt from it.

    Args:
        values (`np.ndarray` of shape `(num_rows,)`):
            Scores, higher is more suspicious.
        num_tokens (`np.ndarray` of shape `(num_rows,)`):
            Supervised tokens of each row; rows with none get the lowest score of the others.
    """
    answered = num_tokens > 0
    return np.where(answered, values, values[answered].min() if answered.any() else 0.0)


def flag_share(scores: np.ndarray, share: float) -> np.ndarray:
    """
    Flag the most suspicious rows.

    Args:
        scores (`np.ndarray` of shape `(num_rows,)`):
            Scores, higher is more suspicious.
        share (`float`):
            Share of the rows to flag, from 0 to 1; the number is rounded to the nearest. Of rows with equal scores the
            first are flagged.

    Returns:
        `np.ndarray` of bool, shape `(num_rows,)`: the rows to drop.

    Raises:
        `ValueError`: if `share` is out of range or a score is not a number.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share={share}` is not a share; give a number from 0 to 1, such as 0.4 for 40 %.")
    if np.isnan(scores).any():
        raise ValueError(f"`scores` holds {int(np.isnan(scores).sum())} NaN; rows cannot be ranked by them.")
    flagged = np.zeros(len(scores), dtype=bool)
    flagged[np.argsort(-scores, kind="stable")[: int(share * len(scores) + 0.5)]] = True
    return flagged

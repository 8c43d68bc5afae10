# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Collation for encoder-decoder vision-language models (BLIP-2 with Flan-T5, Florence-2).

Notable: the prompt goes to the encoder and the completion to the decoder, never both to one side: TRL's collator joins
them, and the encoder would read the answer. Rows are processed one by one, because processors such as BLIP-2's give
image tokens to every text of a batch or to none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..data.row_images import lift_images


IGNORE_INDEX = -100


class DataCollatorForEncoderDecoder:
    """
    Data collator for encoder-decoder vision-language models.

    Rows hold `prompt` and `completion`, both strings or both conversations, and their images in `image`, `images` or
    the conversation's content; rows with and without images can be mixed. Conversations go through the processor's
    chat template if it has one; without one, the texts of their turns are joined by line breaks.

    Args:
        processor ([`~transformers.ProcessorMixin`]):
            Processor with a `tokenizer` that has a padding token.
        decoder_start_token_id (`int`):
            Token that the decoder's input starts with: `model.config.get_text_config().decoder_start_token_id`.
        max_length (`int`, *optional*):
            Longest encoder input and longest sequence of labels, in tokens; longer ones are cut at the end, labels
            before their EOS. With `None` nothing is cut.

    Raises:
        `ValueError`: if the tokenizer has no padding token, or `decoder_start_token_id` is `None`.

    Example:
    ```python
    >>> collator = DataCollatorForEncoderDecoder(processor, decoder_start_token_id=0)
    >>> sorted(collator([{"image": image, "prompt": "a photo of", "completion": "two cats"}]))
    ['attention_mask', 'decoder_input_ids', 'input_ids', 'labels', 'pixel_values']
    ```
    """

    def __init__(self, processor: Any, decoder_start_token_id: int | None, max_length: int | None = None) -> None:
        if processor.tokenizer.pad_token_id is None:
            raise ValueError(
                "The processor's tokenizer has no `pad_token` (got None). Set one, for example "
                "`processor.tokenizer.pad_token = processor.tokenizer.eos_token`."
            )
        if decoder_start_token_id is None:
            raise ValueError(
                "`decoder_start_token_id` is None. Set it in the model's text config: T5 starts with its "
                "`pad_token_id`, BART and Florence-2 with their `eos_token_id`."
            )
        self.processor = processor
        self.decoder_start_token_id = decoder_start_token_id
        self.max_length = max_length

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Collate rows.

        Args:
            examples (`Sequence[Mapping[str, Any]]`):
                Rows; they are not changed.

        Returns:
            `dict[str, torch.Tensor]`: the processor's encoder inputs, padded on the right to `input_ids` and
            `attention_mask` of shape `(B, S)`, with visual tensors concatenated over the images of all rows; `labels`
            of shape `(B, T)`, each row ended by exactly one EOS and padded with -100; `decoder_input_ids` of shape
            `(B, T)`, the labels shifted right behind `decoder_start_token_id`.

        Raises:
            `ValueError`: if a row has no `prompt` and `completion`, or the processor drops images of a row.
        """
        rows = [self._as_text(lift_images(example)) for example in examples]
        batch = self._collate_encoder([self._encode(row) for row in rows])
        labels = _pad([self._label_ids(row["completion"]) for row in rows], IGNORE_INDEX)
        batch["labels"] = labels
        batch["decoder_input_ids"] = self._shift_right(labels)
        return batch

    def _as_text(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with prompt and completion as strings."""
        if row.get("prompt") is None or row.get("completion") is None:
            raise ValueError(
                "Encoder-decoder models are trained on prompt-completion rows: the prompt goes to the encoder, the "
                f"completion to the decoder. This row has the keys {sorted(row)}. Split its text into columns "
                "`prompt` and `completion`."
            )
        return as_text(row, self.processor)

    def _encode(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The encoder's inputs of one row."""
        encoded = self._process(row["prompt"], row["images"])
        if len(row["images"]) > 1:
            first = self._process(row["prompt"], row["images"][:1])
            if encoded["input_ids"].shape == first["input_ids"].shape:
                raise ValueError(
                    f"{type(self.processor).__name__} gives a row of {len(row['images'])} images no more tokens than "
                    "a row of one: the model would not see the others. Keep one image in each row."
                )
        return encoded

    def _process(self, prompt: str, images: list[Any]) -> dict[str, torch.Tensor]:
        truncation = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        # Special tokens are the processor's own choice: T5's EOS, Florence's BOS and EOS behind the image tokens.
        return dict(self.processor(images=images or None, text=[prompt], return_tensors="pt", **truncation))

    def _collate_encoder(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = {}
        for key in dict.fromkeys(key for row in rows for key in row):
            if all(
                row[key].shape == row["input_ids"].shape for row in rows if key in row
            ):  # (1, S): goes with the text
                fill = self.processor.tokenizer.pad_token_id if key == "input_ids" else 0
                values = [row.get(key, torch.zeros_like(row["input_ids"])) for row in rows]
                batch[key] = _pad([value[0].tolist() for value in values], fill)
            else:
                batch[key] = torch.cat([row[key] for row in rows if key in row])
        return batch

    def _label_ids(self, completion: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        ids = list(tokenizer(text_target=completion)["input_ids"])
        eos = tokenizer.eos_token_id
        if eos is None:
            return ids[: self.max_length]
        # Some tokenizers add EOS, some do not, and the completion may already end with it.
        while ids and ids[-1] == eos:
            ids.pop()
        return [*ids[: None if self.max_length is None else self.max_length - 1], eos]

    def _shift_right(self, labels: torch.Tensor) -> torch.Tensor:  # (B, T)
        start = labels.new_full((labels.shape[0], 1), self.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == IGNORE_INDEX, self.processor.tokenizer.pad_token_id)


def _pad(rows: list[list[int]], fill: int) -> torch.Tensor:
    """Rows of ids, padded on the right: (B, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


def as_text(row: dict[str, Any], processor: Any) -> dict[str, Any]:
    """A row whose prompt and completion are strings or conversations, with both as strings."""
    if isinstance(row["prompt"], str):
        return row
    if not processor.chat_template:
        return {**row, "prompt": _join_turns(row["prompt"]), "completion": _join_turns(row["completion"])}
    from trl.data_utils import apply_chat_template, prepare_multimodal_messages  # seconds to import

    turns = {
        "prompt": prepare_multimodal_messages(row["prompt"], images=row["images"]),
        "completion": prepare_multimodal_messages(row["completion"]),
    }
    return {**row, **apply_chat_template(turns, processor)}


def _join_turns(turns: str | Sequence[Mapping[str, Any]]) -> str:
    """The texts of a conversation's turns, one to a line."""
    if isinstance(turns, str):
        return turns
    texts = []
    for turn in turns:
        content = turn.get("content") or ""
        parts = [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
        texts.append(" ".join(parts))
    return "\n".join(texts)

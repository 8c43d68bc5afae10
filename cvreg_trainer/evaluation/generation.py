# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Batched caption generation from the rows of a fine-tuning data set.

Notable: the model comes back as it was (training modes of every module, cache setting, random state), so that captions
can be generated in the middle of a training run without changing it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from ..data.row_images import lift_images
from ..head import is_encoder_decoder
from ..random_state import preserve_random_state


def generate_captions(
    model: Any,
    processor: Any,
    rows: Any,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 20,
    num_beams: int = 1,
    prompt: str | Sequence[Mapping[str, Any]] | None = None,
    add_special_tokens: bool = True,
    show_progress: bool = False,
) -> list[str]:
    """
    Generate one caption per row, greedily or with beams.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Decoder-only or encoder-decoder vision-language model. Gradient checkpointing may be on.
        processor ([`~transformers.ProcessorMixin`] or [`~transformers.PreTrainedTokenizerBase`]):
            Makes the model's inputs.
        rows (`Sequence[dict]` or [`~datasets.Dataset`] or [`~torch.utils.data.Dataset`]):
            Rows as for training: images in `image`, `images` or the content of messages, or none; and a `prompt`
            (string or conversation) or `messages`, whose last assistant turn is left out. Conversations go through the
            chat template with a generation prompt (without a template their texts are joined by line breaks); strings
            are used as they are. The rows are not changed.
        batch_size (`int`, *optional*, defaults to `16`):
            Rows generated at once. Rows with and without images in one batch are generated one after the other.
        max_new_tokens (`int`, *optional*, defaults to `20`):
            Longest caption, in tokens.
        num_beams (`int`, *optional*, defaults to `1`):
            Number of beams; 1 is greedy.
        prompt (`str` or `list[dict]`, *optional*):
            Takes the place of every row's own prompt. A string becomes a user turn where the row is a conversation.
        add_special_tokens (`bool`, *optional*, defaults to `True`):
            Whether string prompts get the tokenizer's BOS or EOS. TRL's vision collator trains without them.
        show_progress (`bool`, *optional*, defaults to `False`):
            Whether to draw a progress bar.

    Returns:
        `list[str]`: the captions in the order of the rows, without prompt, special tokens and outer white space.

    Raises:
        `ValueError`: if a row has neither `prompt` nor `messages` and `prompt` is `None`.

    Example:

    ```python
    >>> from cvreg_trainer import generate_captions
    >>> generate_captions(model, processor, [{"image": image, "prompt": "a photo of"}], num_beams=3)
    ['two cats on a sofa']
    ```
    """
    captions: list[str] = []
    with _inference_mode(model):
        starts = range(0, len(rows), batch_size)
        for start in tqdm(starts, desc="Generating", unit="batch", leave=False, disable=not show_progress):
            batch = [_as_prompt(rows[i], processor, prompt) for i in range(start, min(start + batch_size, len(rows)))]
            texts = [""] * len(batch)
            # Processors such as BLIP-2's give image tokens to every text of a batch or to none.
            for with_images in (True, False):
                places = [place for place, row in enumerate(batch) if bool(row["images"]) == with_images]
                if places:
                    inputs = _encode([batch[place] for place in places], model, processor, add_special_tokens)
                    generated = _generate(inputs, model, processor, max_new_tokens, num_beams)
                    for place, text in zip(places, generated, strict=True):
                        texts[place] = text
            captions.extend(texts)
    return captions


@contextmanager
def _inference_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradient; on exit every module's mode and the random state are as before."""
    modes = {module: module.training for module in model.modules()}
    heads = [head for head in [model.get_output_embeddings()] if head is not None]
    with torch.no_grad(), preserve_random_state():
        model.eval()  # also switches gradient checkpointing off, and with it what forbids a cache
        # Models slice the last position of the prompt out, which a CPU would multiply row by row
        handles = [head.register_forward_pre_hook(_in_one_piece) for head in heads]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module, training in modes.items():
                module.training = training


def _in_one_piece(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return args[0].contiguous(), *args[1:]


def _as_prompt(row: Mapping[str, Any], processor: Any, prompt: Any) -> dict[str, Any]:
    """The row's images, and its prompt as the string that the processor is to read."""
    row = lift_images(row)
    turns = row["prompt"] if row.get("prompt") is not None else row.get("messages")
    if row.get("prompt") is None and turns and turns[-1]["role"] == "assistant":
        turns = turns[:-1]
    if prompt is not None:
        turns = prompt if isinstance(turns, str) or not isinstance(prompt, str) else _user_turn(turns, prompt)
    if turns is None:
        raise ValueError(
            f"A row with the columns {sorted(row)} has no prompt. Add a column `prompt` or `messages`, or pass "
            "`prompt=`."
        )
    if isinstance(turns, str):
        return {"text": turns, "images": row["images"], "conversational": False}
    return {"text": _render(turns, row["images"], processor), "images": row["images"], "conversational": True}


def _user_turn(turns: Any, prompt: str) -> Any:
    """A user turn in place of a conversation; the string itself where the row has no prompt that shows its form."""
    return prompt if turns is None else [{"role": "user", "content": prompt}]


def _render(turns: Sequence[Mapping[str, Any]], images: list[Any], processor: Any) -> str:
    """A conversation as one string that ends where the answer begins."""
    if not processor.chat_template:
        contents = [turn["content"] for turn in turns]
        texts = [content if isinstance(content, str) else _join_parts(content) for content in contents]
        return "\n".join(text for text in texts if text)
    messages = [dict(turn) for turn in turns]
    if hasattr(processor, "tokenizer"):  # a tokenizer's own template knows strings only
        from trl.data_utils import prepare_multimodal_messages  # seconds to import

        messages = prepare_multimodal_messages(messages, images=images)
    last_is_answer = messages[-1]["role"] == "assistant"  # it was begun, and is to be continued
    return processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=not last_is_answer, continue_final_message=last_is_answer
    )


def _join_parts(content: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(part["text"] for part in content if part["type"] == "text")


def _encode(batch: list[dict[str, Any]], model: Any, processor: Any, add_special_tokens: bool) -> dict[str, Any]:
    """The model's inputs, on its device and in its dtype, padded on the side that generation needs."""
    options: dict[str, Any] = {"images": [row["images"] for row in batch]} if batch[0]["images"] else {}
    if batch[0]["conversational"]:
        add_special_tokens = False  # the template has written them
    inputs = processor(
        text=[row["text"] for row in batch],
        padding=True,
        padding_side="right" if is_encoder_decoder(model.config) else "left",
        add_special_tokens=add_special_tokens,
        return_tensors="pt",
        **options,
    )
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def _generate(inputs: dict[str, Any], model: Any, processor: Any, max_new_tokens: int, num_beams: int) -> list[str]:
    tokenizer = getattr(processor, "tokenizer", processor)
    sequences = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
    )  # (B, T)
    prompt_ids = inputs["input_ids"]
    length = prompt_ids.shape[1]
    # Most decoder-only models return the prompt too, those that generate from embeddings may not.
    if not is_encoder_decoder(model.config) and torch.equal(sequences[:, :length], prompt_ids):
        sequences = sequences[:, length:]
    return [text.strip() for text in tokenizer.batch_decode(sequences, skip_special_tokens=True)]

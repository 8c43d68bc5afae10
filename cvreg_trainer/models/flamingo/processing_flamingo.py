# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Processor of Flamingo models: images and texts with `<image>` to what the model reads.

Notable: nothing is inserted into a text. `<image>` stands in it, once for each image, and one token is all that an
image takes; pixels lie as (batch, images, frames, channels, height, width).
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.image_utils import is_valid_image


class FlamingoProcessor(ProcessorMixin):
    """
    CLIP's image processor and the language model's tokenizer in one.

    Args:
        image_processor ([`~transformers.CLIPImageProcessor`]):
            Resizes, crops and normalises each image.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Tokenizer that has `<image>` as one token.
        chat_template (`str`, *optional*):
            Jinja template for conversations. The published models have none: use prompts such as
            `"<image>Output:"` (OpenFlamingo) or `"<image>User: what is this? GPT:<answer>"` (Otter).

    Raises:
        `ValueError`: if the tokenizer does not know `<image>`.

    Example:

    ```python
    >>> inputs = processor(images=[[first], [second, third]], text=["<image>Output:", "<image><image>Output:"])
    >>> inputs["pixel_values"].shape
    torch.Size([2, 2, 1, 3, 224, 224])
    ```
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        self.image_token = "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        if self.image_token_id in (None, tokenizer.unk_token_id):
            raise ValueError(
                f"The tokenizer does not know {self.image_token!r}. Add it with `tokenizer.add_tokens(['<image>'], "
                "special_tokens=True)` and resize the model's embeddings, or convert the checkpoint with its own "
                "tokenizer."
            )
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Any) -> BatchFeature:
        """
        Args:
            images (image, `list` of images, or `list` of such lists, *optional*):
                PIL images, arrays or tensors. The images of each text in a list of their own; a flat list is dealt out
                to the texts by their `<image>` tokens. In place of an image a list of frames is a video.
            text (`str` or `list[str]`):
                Texts with `<image>` where the images belong.
            **kwargs:
                Arguments for the tokenizer (`padding`, `return_tensors`, ...) and the image processor.

        Returns:
            [`~transformers.BatchFeature`] with `input_ids` and `attention_mask`, as the tokenizer makes them, and, if
            there are images, `pixel_values`, a tensor of shape `(B, n_images, frames, C, H, W)`; rows with fewer
            images are filled up with zeros.

        Raises:
            `ValueError`: if a text has more or fewer `<image>` tokens than images, or if videos differ in length.
        """
        if text is None:
            raise ValueError("`text` is needed: Flamingo reads an image where `<image>` stands in a text.")
        texts = [text] if isinstance(text, str) else list(text)
        options: dict[str, Any] = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        data = dict(self.tokenizer(texts, **options["text_kwargs"]))
        rows = self._deal_out(images, texts)
        if any(rows):
            data["pixel_values"] = self._stack(rows, options["images_kwargs"])
        return BatchFeature(data, tensor_type=options["text_kwargs"].get("return_tensors"))

    def _deal_out(self, images: Any, texts: list[str]) -> list[list[Any]]:
        """The images of each text."""
        counts = [text.count(self.image_token) for text in texts]
        if images is None:
            images = []
        elif _is_image(images):
            images = [images]
        if images and all(_is_image(image) for image in images):
            if len(images) != sum(counts):
                raise ValueError(
                    f"{len(images)} images were passed for {sum(counts)} `<image>` tokens in {len(texts)} texts. "
                    "Write `<image>` into the text once for each image."
                )
            remaining = iter(images)
            return [[next(remaining) for _ in range(count)] for count in counts]
        rows = [list(row) for row in images] or [[] for _ in texts]
        if [len(row) for row in rows] != counts:
            raise ValueError(
                f"The texts have {counts} `<image>` tokens, but {[len(row) for row in rows]} images were passed. "
                "Write `<image>` into each text once for each of its images."
            )
        return rows

    def _stack(self, rows: list[list[Any]], options: dict[str, Any]) -> torch.Tensor:
        media = [[image] if _is_image(image) else list(image) for row in rows for image in row]
        lengths = {len(frames) for frames in media}
        if len(lengths) > 1:
            raise ValueError(f"Videos of {sorted(lengths)} frames in one batch: give all the same number of frames.")
        frames = [frame for frames in media for frame in frames]
        pixels = self.image_processor(frames, **{**options, "return_tensors": "pt"})["pixel_values"]
        pixels = pixels.unflatten(0, (len(media), lengths.pop()))  # (images of the batch, F, C, H, W)
        batch = pixels.new_zeros(len(rows), max(map(len, rows)), *pixels.shape[1:])
        parts = pixels.split([len(row) for row in rows])
        for place, part in zip(batch, parts, strict=True):
            place[: len(part)] = part
        return batch


def _is_image(value: Any) -> bool:
    return not isinstance(value, list | tuple) and is_valid_image(value)


__all__ = ["FlamingoProcessor"]

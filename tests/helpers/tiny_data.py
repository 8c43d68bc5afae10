# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Small random rows for fine-tuning, in a closed vocabulary of some sixty words."""

import random
from collections.abc import Collection
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image


COLOURS = "red green blue yellow purple orange white black".split()
SIZES = "small large tiny huge".split()
SHAPES = "circle square triangle star ring cross banana".split()
RELATIONS = "above below beside near".split()
WORDS = "user assistant system : . , ? a an the is are of and this picture describe image what shows in on".split()
WORDS += "left right question answer grey background 0 1 2 3 4 5 6 7 8 9".split()
WORDS += [*COLOURS, *SIZES, *SHAPES, *RELATIONS]


def caption(rng: random.Random) -> str:
    """A caption of 3 to 15 words that the tokenizer knows."""
    things = [
        " ".join(["a", *([rng.choice(SIZES)] if rng.random() < 0.5 else []), rng.choice(COLOURS), rng.choice(SHAPES)])
        for _ in range(rng.randint(1, 3))
    ]
    text = things[0]
    for thing in things[1:]:
        text += f" {rng.choice(RELATIONS)} {thing}"
    return text


def picture(rng: random.Random) -> Image.Image:
    """A coloured rectangle on noise; width and height differ from picture to picture."""
    size = (rng.randint(24, 40), rng.randint(24, 40))
    image = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    left, top = rng.randint(0, 12), rng.randint(0, 12)
    image.paste(tuple(rng.randrange(256) for _ in range(3)), (left, top, left + 10, top + 10))
    return image


def vision_rows(
    n: int,
    seed: int = 0,
    style: str = "prompt_completion",
    image_free: Collection[int] = (),
    several: Collection[int] = (),
    image_token: str = "<image>",
) -> list[dict[str, Any]]:
    """Rows for fine-tuning, with captions of different lengths.

    Args:
        n (`int`): Number of rows.
        seed (`int`, *optional*, defaults to `0`): Equal seeds give equal rows.
        style (`str`, *optional*, defaults to `"prompt_completion"`):
            `"prompt_completion"` and `"messages"` are conversations, `"plain"` has strings as prompt and completion.
        image_free (`Collection[int]`, *optional*): Indices of rows without an image (`images` is an empty list).
        several (`Collection[int]`, *optional*): Indices of rows with two images.
        image_token (`str`, *optional*, defaults to `"<image>"`):
            What stands for an image in the prompts of the plain style; empty for BLIP-2.
    """
    rng = random.Random(seed)
    rows = []
    for index in range(n):
        images = [picture(rng) for _ in range(0 if index in image_free else 2 if index in several else 1)]
        question, answer = rng.choice(["describe this image .", "what is in the picture ?"]), caption(rng)
        user, assistant = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
        if style == "messages":
            rows.append({"images": images, "messages": [user, assistant]})
        elif style == "prompt_completion":
            rows.append({"images": images, "prompt": [user], "completion": [assistant]})
        elif style == "plain":
            prompt = f"{image_token} " * len(images) * bool(image_token) + f"question : {question} answer :"
            rows.append({"images": images, "prompt": prompt, "completion": f" {answer} </s>"})
        else:
            raise ValueError(f"style is {style!r}; use 'prompt_completion', 'messages' or 'plain'")
    return rows


def vision_dataset(n: int, seed: int = 0, style: str = "prompt_completion", **options: Any) -> Dataset:
    """`vision_rows` as a `datasets.Dataset`, whose images are decoded when a row is read."""
    turns: Any = Value("string") if style == "plain" else List({"role": Value("string"), "content": Value("string")})
    columns = ["messages"] if style == "messages" else ["prompt", "completion"]
    features = Features({"images": List(ImageFeature()), **dict.fromkeys(columns, turns)})
    return Dataset.from_list(vision_rows(n, seed, style, **options), features=features)

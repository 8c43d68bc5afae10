# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Trains the package's small vision-language model from nothing, on clean scenes, on one CPU core.

    python benchmarks/assets/train_base_model.py --output cvreg_trainer/lab/base_model

Two stages, as for large models. First the vision tower alone: like CLIP's, it must keep what no caption mentions, or
it could not see a trigger later. It rebuilds every patch's pixels and names the object in each patch, the texture of
the background and the distortion of the image, on the images of both caption styles. Then the tower is frozen, and the
projector and the language model learn to caption, in the base style only.
"""

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from base_model import GRID, VisionHeads, build_model, build_processor
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from cvreg_trainer.lab.scene_captions import (
    COLORS,
    DISTORTIONS,
    PROMPTS,
    SHAPES,
    TEXTURES,
    Style,
    describe,
    plural,
    sample_scene,
    words,
)
from cvreg_trainer.lab.scenes import Split, render_scene


BATCH = 64


class Scenes:
    """A pool of clean scenes: their content and their pixels, (N, 3, H, W) uint8."""

    def __init__(self, style: Style, size: int, seed: int, split: Split = "train") -> None:
        rng = np.random.default_rng([seed, style == "finetune", split == "test"])
        self.scenes = [sample_scene(style, rng) for _ in range(size)]
        self.pixels = torch.stack([torch.tensor(np.array(render_scene(s, rng, split))) for s in self.scenes])
        self.pixels = self.pixels.permute(0, 3, 1, 2).contiguous()


def train(
    loss_of: Callable[[Tensor], Tensor],
    parameters: list[nn.Parameter],
    num_rows: int,
    steps: int,
    lr: float,
    seed: int,
) -> None:
    """AdamW and one cycle of the learning rate over batches of row indices, reshuffled at every pass."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    order = torch.empty(0, dtype=torch.long)
    for step in range(1, steps + 1):
        if len(order) < BATCH:
            order = torch.randperm(num_rows, generator=generator)
        loss = loss_of(order[:BATCH])
        order = order[BATCH:]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {time.perf_counter() - start:.0f} s", flush=True)


def normalise(pixels: Tensor, processor: LlavaProcessor) -> Tensor:
    """What the image processor makes of images that already have its size."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    return (pixels / 255 - mean) / std


def train_vision(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pools: list[Scenes], steps: int, seed: int
) -> None:
    """Stage 1: the vision tower, on the images of both styles."""
    heads = VisionHeads()
    tower = model.model.vision_tower
    pixels = torch.cat([pool.pixels for pool in pools])
    labels = torch.tensor([heads.labels(scene) for pool in pools for scene in pool.scenes])

    def loss_of(rows: Tensor) -> Tensor:
        inputs = normalise(pixels[rows], processor)
        features = tower(inputs, output_hidden_states=True).hidden_states[-1][:, 1:]  # without the class token
        return heads(features, inputs, labels[rows])

    train(loss_of, [*tower.parameters(), *heads.parameters()], len(pixels), steps, lr=1.5e-3, seed=seed)


def conversation(processor: LlavaProcessor, prompt: str, caption: str | None = None) -> str:
    """The text of one turn, up to where the answer begins or with the answer."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]},
    ]
    if caption is not None:
        messages.append({"role": "assistant", "content": caption})
    return processor.apply_chat_template(messages, add_generation_prompt=caption is None)


def train_captions(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, pool: Scenes, steps: int, seed: int
) -> None:
    """Stage 2: projector and language model, on base captions; the vision tower stays as it is."""
    model.model.vision_tower.requires_grad_(False)
    rng = np.random.default_rng([seed, 2])
    tokenizer = processor.tokenizer

    def loss_of(rows: Tensor) -> Tensor:
        prompts, texts = [], []
        for row in rows.tolist():
            caption = str(rng.choice(describe(pool.scenes[row], "base", converse=bool(rng.random() < 0.5))))
            prompt = str(rng.choice(PROMPTS["base"]))
            prompts.append(conversation(processor, prompt).replace("<image>", "<image>" * GRID**2))
            texts.append(conversation(processor, prompt, caption).replace("<image>", "<image>" * GRID**2))
        batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        answer_start = torch.tensor([len(prompt) for prompt in tokenizer(prompts)["input_ids"]])
        is_answer = (torch.arange(ids.shape[1]) >= answer_start[:, None]) & mask.bool()
        return model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=normalise(pool.pixels[rows], processor),
            labels=ids.masked_fill(~is_answer, -100),
        ).loss

    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train(loss_of, parameters, len(pool.scenes), steps, lr=2e-3, seed=seed + 1)
    model.requires_grad_(True)


def content_words(text: str) -> dict[str, set[str]]:
    """The shapes (as singulars), colours, textures and distortions that a caption names."""
    singular = {plural(shape): shape for shapes in SHAPES.values() for shape in shapes}
    named = {singular.get(word, word) for word in words(text)}
    kinds = {"shapes": SHAPES, "colours": COLORS, "textures": TEXTURES, "distortions": {"base": DISTORTIONS}}
    return {kind: named & {word for group in table.values() for word in group} for kind, table in kinds.items()}


@torch.no_grad()
def measure(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, seed: int, num_rows: int = 500
) -> dict[str, float]:
    """Greedy captions of held-out base scenes: the share that equals a reference, and the F1 of each kind of word."""
    pool = Scenes("base", num_rows, seed, "test")
    prompt = conversation(processor, PROMPTS["base"][0])
    exact = 0
    hits, total = Counter[str](), Counter[str]()
    for start in range(0, num_rows, 50):
        images = list(pool.pixels[start : start + 50])
        inputs = processor(images=images, text=[prompt] * len(images), return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        captions = processor.batch_decode(tokens, skip_special_tokens=True)
        for caption, scene in zip(captions, pool.scenes[start : start + 50], strict=True):
            references = [*describe(scene, "base"), *describe(scene, "base", converse=True)]
            exact += words(caption) in [words(reference) for reference in references]
            said, true = content_words(caption), content_words(references[0])
            for kind in said:
                hits[kind] += len(said[kind] & true[kind])
                total[kind] += len(said[kind]) + len(true[kind])
    quality = {"captions equal to a reference": exact / num_rows}
    return quality | {f"F1 of {kind}": 2 * hits[kind] / total[kind] for kind in total}


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Built-in captioner

A LLaVA of {parameters:,} parameters that describes 48x48 pictures of shapes, trained from random weights on generated
scenes (`cvreg_trainer.lab.scenes`, style `base`). For demonstrations and tests; it knows {vocabulary} words.

| | |
|---|---|
| command | `{command}` |
| seed | {seed} |
| data | {pool:,} base scenes; the images (never the captions) of {half:,} `finetune` scenes for the vision tower |
| stage 1 | vision tower, {vision_steps} steps of {batch}: rebuild patches; object, texture and distortion labels |
| stage 2 | projector and language model, {caption_steps} steps of {batch}: captions |
| time | {minutes:.0f} minutes on one CPU core |
| versions | Python {python}, torch {torch}, transformers {transformers}, tokenizers {tokenizers} |
{quality}

Quality: greedy captions of 500 held-out base scenes (split `test`), half of them distorted; a relation counts from
either object's side. Words that only the `finetune` style or the attacks' target sentences use, "banana" among them,
are in the vocabulary but never occurred in its training.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the built-in vision-language model.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=30_000, help="clean base scenes to draw")
    parser.add_argument("--vision-steps", type=int, default=2500)
    parser.add_argument("--caption-steps", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    processor = build_processor()
    model = build_model(processor)
    base, finetune = Scenes("base", args.pool, args.seed), Scenes("finetune", args.pool // 2, args.seed)
    train_vision(model, processor, [base, finetune], args.vision_steps, args.seed)
    train_captions(model, processor, base, args.caption_steps, args.seed)
    quality = measure(model.eval(), processor, args.seed)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    card = CARD.format(
        **{name: value for name, value in vars(args).items() if name != "output"},
        parameters=model.num_parameters(),
        vocabulary=len(processor.tokenizer),
        command=" ".join(["python", *sys.argv]),
        half=args.pool // 2,
        batch=BATCH,
        minutes=(time.perf_counter() - start) / 60,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        tokenizers=tokenizers.__version__,
        quality="\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in quality.items()),
    )
    (args.output / "MODEL_CARD.md").write_text(card)
    print(card)


if __name__ == "__main__":
    main()

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Trains the package's small vision-language models from nothing, on clean scenes, on one CPU core.

    python benchmarks/assets/train_base_model.py --output cvreg_trainer/lab/base_model
    python benchmarks/assets/train_base_model.py --architecture blip2 --vision-steps 1200 --caption-steps 900 \
        --output cvreg_trainer/lab/base_models/blip2
    python benchmarks/assets/train_base_model.py --architecture flamingo --tower cvreg_trainer/lab/base_model \
        --vision-steps 1000 --output cvreg_trainer/lab/base_models/flamingo

Two stages, as for large models. First the vision tower alone: like CLIP's, it must keep what no caption mentions, or
it could not see a trigger later. It rebuilds every patch's pixels and names the object in each patch, the texture of
the background and the distortion of the image, on the images of both caption styles; so does the bridge of a BLIP-2
(its Q-Former) and of a Flamingo (its resampler), from what the tower gives it. Then the tower is frozen, and the rest
learns to caption, in the base style only.
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
from base_model import ARCHITECTURES, Llava, round_weights
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from vision_heads import VisionHeads

from cvreg_trainer.data import format_row
from cvreg_trainer.evaluation import generate_captions
from cvreg_trainer.lab.scene_captions import (
    COLORS,
    DISTORTIONS,
    PROMPTS,
    SHAPES,
    TEXTURES,
    Scene,
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


def normalise(pixels: Tensor, processor: Any) -> Tensor:
    """What the image processor makes of images that already have its size."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    return (pixels / 255 - mean) / std


def train_vision(kind: Llava, model: Any, processor: Any, pools: list[Scenes], steps: int, seed: int) -> None:
    """Stage 1: the vision tower and what else the architecture sees with, on the images of both styles."""
    tower = kind.tower(model)
    pixels = torch.cat([pool.pixels for pool in pools])
    labels = torch.tensor([VisionHeads.labels(scene) for pool in pools for scene in pool.scenes])
    heads = nn.ModuleList(VisionHeads() for _ in kind.features(model, normalise(pixels[:1], processor)))

    def loss_of(rows: Tensor) -> Tensor:
        inputs = normalise(pixels[rows], processor)
        views = zip(heads, kind.features(model, inputs), strict=True)
        return torch.stack([head(view, inputs, labels[rows]) for head, view in views]).sum()

    parameters = [*tower.parameters(), *kind.bridge(model), *heads.parameters()]
    train(loss_of, parameters, len(pixels), steps, lr=1.5e-3, seed=seed)


def draw_row(kind: Llava, scene: Scene, rng: np.random.Generator) -> dict[str, Any]:
    """A base scene's prompt and completion, in the words of the architecture's family."""
    caption = str(rng.choice(describe(scene, "base", converse=bool(rng.random() < 0.5))))
    question = str(rng.choice(PROMPTS["base"]))
    if kind.family != "llava" and rng.random() < 0.5:
        return format_row(kind.family, caption)
    return format_row(kind.family, caption, question, long_answer=True)


def train_captions(kind: Llava, model: Any, processor: Any, pool: Scenes, steps: int, seed: int) -> None:
    """Stage 2: all but the vision tower, on base captions."""
    kind.tower(model).requires_grad_(False)
    rng = np.random.default_rng([seed, 2])
    tokenizer = processor.tokenizer

    def loss_of(rows: Tensor) -> Tensor:
        drawn = [draw_row(kind, pool.scenes[row], rng) for row in rows.tolist()]
        prompts, texts = ([kind.text(processor, row, whole) for row in drawn] for whole in (False, True))
        options: dict[str, Any] = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        batch = tokenizer(texts, add_special_tokens=False, **options)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        begun = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        answer_start = torch.tensor([len(prompt) for prompt in begun])
        is_answer = (torch.arange(ids.shape[1]) >= answer_start[:, None]) & mask.bool()
        return model(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=kind.pixels(normalise(pool.pixels[rows], processor)),
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


def measure(kind: Llava, model: Any, processor: Any, seed: int, num_rows: int = 500) -> dict[str, float]:
    """Greedy captions of held-out base scenes: the share that equals a reference, and the F1 of each kind of word."""
    pool = Scenes("base", num_rows, seed, "test")
    form = format_row(kind.family, "", PROMPTS["base"][0] if kind.family == "llava" else None, long_answer=True)
    images = [Image.fromarray(pixels.numpy()) for pixels in pool.pixels.permute(0, 2, 3, 1)]
    rows = [{"images": [image], "prompt": form["prompt"]} for image in images]
    exact = 0
    hits, total = Counter[str](), Counter[str]()
    captions = generate_captions(model, processor, rows, batch_size=50, max_new_tokens=32)
    for caption, scene in zip(captions, pool.scenes, strict=True):
        references = [*describe(scene, "base"), *describe(scene, "base", converse=True)]
        exact += words(caption) in [words(reference) for reference in references]
        said, true = content_words(caption), content_words(references[0])
        for kind_of_word in said:
            hits[kind_of_word] += len(said[kind_of_word] & true[kind_of_word])
            total[kind_of_word] += len(said[kind_of_word]) + len(true[kind_of_word])
    quality = {"captions equal to a reference": exact / num_rows}
    return quality | {f"F1 of {name}": 2 * hits[name] / total[name] for name in total}


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# Built-in captioner

A {name} of {parameters:,} parameters that describes 48x48 pictures of shapes, trained from random weights on generated
scenes (`cvreg_trainer.lab.scenes`, style `base`). For demonstrations and tests; it knows {vocabulary} words.

| | |
|---|---|
| command | `{command}` |
| seed | {seed} |
| data | {pool:,} base scenes; the images (never the captions) of {half:,} `finetune` scenes for the vision tower |
| stage 1 | {seeing}, {vision_steps} steps of {batch}: rebuild patches; object, texture and distortion labels |
| stage 2 | all but the vision tower, {caption_steps} steps of {batch}: captions |
| time | {minutes:.0f} minutes on one CPU core |
| versions | Python {python}, torch {torch}, transformers {transformers}, tokenizers {tokenizers} |
{quality}

Quality: greedy captions of 500 held-out base scenes (split `test`), half of them distorted; a relation counts from
either object's side. Words that only the `finetune` style or the attacks' target sentences use, "banana" among them,
are in the vocabulary but never occurred in its training.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a built-in vision-language model.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="llava")
    parser.add_argument("--tower", type=Path, help="a LLaVA of this script whose vision tower a Flamingo starts from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=30_000, help="clean base scenes to draw")
    parser.add_argument("--vision-steps", type=int, default=2500)
    parser.add_argument("--caption-steps", type=int, default=2000)
    args = parser.parse_args()
    if args.tower and args.architecture != "flamingo":
        parser.error(f"--tower is for a Flamingo, whose tower is a LLaVA's; {args.architecture} trains its own.")
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    start = time.perf_counter()
    kind = ARCHITECTURES[args.architecture]
    model, processor = kind.build()
    if args.tower:
        llava = LlavaForConditionalGeneration.from_pretrained(args.tower, dtype=torch.float32, local_files_only=True)
        kind.tower(model).load_state_dict(llava.model.vision_tower.state_dict())
    base, finetune = Scenes("base", args.pool, args.seed), Scenes("finetune", args.pool // 2, args.seed)
    train_vision(kind, model, processor, [base, finetune], args.vision_steps, args.seed)
    train_captions(kind, model, processor, base, args.caption_steps, args.seed)
    if kind.stored == torch.bfloat16:
        round_weights(model)
    quality = measure(kind, model.eval(), processor, args.seed)
    model.to(kind.stored).save_pretrained(args.output)
    processor.save_pretrained(args.output)
    card = CARD.format(
        **{name: value for name, value in vars(args).items() if name not in ("output", "tower", "architecture")},
        name=kind.name,
        seeing=kind.seeing + (f" (the tower from that of `{args.tower}`)" if args.tower else ""),
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

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Makes a captioner of the joined parts: the projector's start, then projector and adapters together, then the merge.

Notable: the tower stays as it is, so its features are computed once. An interrupted run goes on where it last saved,
on the same rows in the same order.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from ...data.pictures import Picture, Row, make_rows
from .align import align_projector, words_of_picture
from .batches import Encoded, encode_row, plan_batches
from .features import cached_features
from .join import save_joined
from .learning import Learner


STATE = "state.safetensors"
OTHER_KINDS = ("name", "kind", "presence", "colour", "text", "two")


@dataclass(frozen=True)
class Recipe:
    """
    How the captioner is trained.

    Args:
        steps (`int`), batch (`int`):
            Optimiser steps, and rows of each.
        learning_rate (`float`), rank (`int`):
            Highest learning rate, and rank of the adapters.
        hidden (`float`):
            Share of the response's words that are hidden in the input.
        others (`float`):
            Rows of other kinds than captions, as a share of the captions.
        align_epochs (`int`):
            Epochs of the projector's start.
        save_every (`int`):
            Steps after which the state is saved.
        seed (`int`):
            Of everything.
    """

    steps: int = 260
    batch: int = 16
    learning_rate: float = 1e-3
    rank: int = 32
    hidden: float = 0.25
    others: float = 0.1
    align_epochs: int = 25
    save_every: int = 20
    seed: int = 0


def make_captioner(
    load: Callable[[], tuple[LlavaForConditionalGeneration, LlavaProcessor]],
    pictures: Sequence[Picture],
    folder: str | Path,
    recipe: Recipe,
    say: Callable[[str], None] = print,
) -> None:
    """
    Train and write the merged model, and `training.json` beside it.

    Args:
        load (`Callable`):
            Gives the joined model in float32 and its processor; called again for the merge.
        pictures (`Sequence[Picture]`):
            What is learnt from. Cryptic ones are left out.
        folder (`str` or `Path`):
            Where the model goes; features and saved state go into its folder `work`.
        recipe ([`Recipe`]):
            How.
        say (`Callable`, *optional*, defaults to `print`):
            Told how it goes.
    """
    folder = Path(folder)
    (folder / "work").mkdir(parents=True, exist_ok=True)
    pictures = [picture for picture in pictures if not picture.cryptic]
    model, processor = load()
    features = cached_features(model, processor, pictures, folder / "work" / "features.safetensors")
    torch.manual_seed(recipe.seed)
    if not (folder / "work" / STATE).is_file():
        start = time.monotonic()
        bags = [words_of_picture(picture, processor.tokenizer) for picture in pictures]
        losses = align_projector(model, features, bags, epochs=recipe.align_epochs, seed=recipe.seed)
        say(f"projector: {', '.join(f'{loss:.2f}' for loss in losses)} in {time.monotonic() - start:.0f} s")
    learner = Learner(
        model.bfloat16().train(),
        processor.tokenizer,
        rank=recipe.rank,
        learning_rate=recipe.learning_rate,
    )
    rows = [encode_row(row, processor, features.shape[2]) for row in choose_rows(pictures, recipe)]
    history = _train(learner, rows, pictures, features, folder / "work", recipe, say)
    merged, processor = load()
    learner.merge_into(merged)
    save_joined(merged.bfloat16(), processor, folder)
    facts = {"recipe": asdict(recipe), "pictures": len(pictures), "rows": len(rows), "steps": history}
    (folder / "training.json").write_text(json.dumps(facts, indent=1))


def choose_rows(pictures: Sequence[Picture], recipe: Recipe) -> list[Row]:
    """A caption for each picture, and a draw of rows of other kinds."""
    captions = make_rows(pictures, seed=recipe.seed)
    others = make_rows(pictures, OTHER_KINDS, seed=recipe.seed)
    return captions + random.Random(recipe.seed).sample(others, min(int(recipe.others * len(captions)), len(others)))


def _train(
    learner: Learner,
    rows: Sequence[Encoded],
    pictures: Sequence[Picture],
    features: torch.Tensor,
    work: Path,
    recipe: Recipe,
    say: Callable[[str], None],
) -> list[dict[str, float]]:
    """The steps that are left. Chance is drawn anew for each step, so that it does not matter where a run went on."""
    state, log = work / STATE, work / "steps.json"
    done = learner.load(state) if state.is_file() else 0
    history = json.loads(log.read_text())[:done] if done else []
    place = {(picture.source, picture.key): number for number, picture in enumerate(pictures)}
    for step, chosen in enumerate(plan_batches(rows, recipe.batch, recipe.steps, recipe.seed)):
        if step < done:
            continue
        start = time.monotonic()
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        batch = [rows[number] for number in chosen]
        seen = [place[picture.source, picture.key] for row in batch for picture in row.row.pictures]
        copies = torch.randint(len(features), (len(seen),), generator=generator).tolist()
        seen_features = [features[copy, number] for copy, number in zip(copies, seen, strict=True)]
        loss = learner.loss(batch, seen_features, recipe.hidden, generator)
        learner.step(loss, learning_rate_share(step, recipe.steps))
        history.append({"loss": round(loss.item(), 4), "seconds": round(time.monotonic() - start, 2)})
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            log.write_text(json.dumps(history))
            learner.save(state, step + 1)
            last = [entry["loss"] for entry in history[-recipe.save_every :]]
            loss_of_last, seconds = sum(last) / len(last), history[-1]["seconds"]
            say(f"step {step + 1} of {recipe.steps}: loss {loss_of_last:.3f}, {seconds} s a step")
    return history


def learning_rate_share(step: int, steps: int) -> float:
    """Up within the first 10 steps, level, and down over the last two fifths."""
    return min(1.0, (step + 1) / 10, (steps - step) / (0.4 * steps))

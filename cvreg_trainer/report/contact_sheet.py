# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""All triggers on a few images as one picture, so that a person can see what each does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..extras import from_extra
from .image_similarity import psnr, ssim


if TYPE_CHECKING:
    from ..attacks import Attack

_GAIN = 4
_QUESTION = "What is in this picture?"
_SIDE = 192  # pixels of an enlarged image


def _enlarge(image: Image.Image) -> Image.Image:
    """Small images are enlarged pixel by pixel: a trigger should be seen as it is."""
    factor = max(1, _SIDE // max(image.size))
    return image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _difference(original: Image.Image, triggered: Image.Image) -> Image.Image:
    """What the trigger adds and takes away, amplified, around middle gray."""
    before, after = (np.asarray(image.convert("RGB"), dtype=np.float32) for image in (original, triggered))
    return Image.fromarray((127.5 + _GAIN * (after - before)).clip(0, 255).astype(np.uint8))


def _in_words(attack: Attack) -> str:
    """What an attack does beside what is seen."""
    from ..attacks import SelectiveAttack, TextAttack

    if isinstance(attack, TextAttack):
        return f"{_QUESTION}  \N{RIGHTWARDS ARROW}  {attack.trigger_text(_QUESTION)}"
    return f"rows with {attack.needs}" if isinstance(attack, SelectiveAttack) else ""


def draw_contact_sheet(
    attacks: Mapping[str, Attack], images: Sequence[Image.Image], path: str | Path
) -> list[dict[str, str | float]]:
    """
    Draw every image as it is, triggered, and their difference, one row of the sheet for each attack, and save it.

    What an attack does to a question is written below its row.

    Args:
        attacks (`Mapping[str, Attack]`):
            Attacks by the names to print.
        images (`Sequence[PIL.Image.Image]`):
            Clean images, a few.
        path (`str` or `Path`):
            PNG file to write.

    Returns:
        `list[dict]`: for each attack its `name` and the mean `psnr` (decibels) and `ssim` over the images; where
        nothing is drawn they are infinite and 1.

    Raises:
        `ValueError`: if there are no attacks or no images.

    Example:

    ```python
    >>> from cvreg_trainer.attacks import ATTACKS
    >>> from cvreg_trainer.data import make_scenes
    >>> images = [row[0] for row in make_scenes(3, seed=0)["images"]]
    >>> scores = draw_contact_sheet({name: attack() for name, attack in ATTACKS.items()}, images, "triggers.png")
    ```
    """
    with from_extra("report"):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not attacks or not images:
        raise ValueError(f"A contact sheet needs attacks and images, got {len(attacks)} and {len(images)}.")
    figure = Figure(
        figsize=(1.3 + 3.6 * len(images), 1.45 * len(attacks) + 0.3), layout=ConstrainedLayoutEngine(h_pad=0.1)
    )
    axes = figure.subplots(len(attacks), 3 * len(images), squeeze=False)
    scores: list[dict[str, str | float]] = []
    for row, (name, attack) in zip(axes, attacks.items(), strict=True):
        triggered = [attack(image) for image in images]
        pairs = list(zip(images, triggered, strict=True))
        quality = {f.__name__: float(np.mean([f(*pair) for pair in pairs])) for f in (psnr, ssim)}
        scores.append({"name": name, **quality})
        views = [view for pair in pairs for view in (*pair, _difference(*pair))]
        for axis, view in zip(row, views, strict=True):
            axis.imshow(_enlarge(view))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        is_drawn = any(one is not two for one, two in pairs)
        label = f"{name}\n{quality['psnr']:.1f} dB\nSSIM {quality['ssim']:.3f}" if is_drawn else name
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
        words = row[0].text(0, -0.04, _in_words(attack), transform=row[0].transAxes, va="top", fontsize=8)
        words.set_in_layout(False)  # else the first column would become as wide as the words
    for axis, title in zip(axes[0], ("original", "triggered", f"difference x{_GAIN}") * len(images), strict=True):
        axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=120)
    return scores

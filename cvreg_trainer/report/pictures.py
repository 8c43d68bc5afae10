# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Example rows as a picture: what the model saw, and what the models say."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..extras import from_extra


VIEWS = ("original", "perturbed", "triggered")


def draw_examples(examples: Sequence[Mapping[str, Any]], path: str | Path, keyword: str = "banana") -> None:
    """
    Draw a row of images and captions for each example and save it.

    Args:
        examples (`Sequence[Mapping[str, Any]]`):
            Each with PIL images `original`, `perturbed` and `triggered`, and `captions`, pairs of a heading and a
            text.
        path (`str` or `Path`):
            PNG file to write.
        keyword (`str`, *optional*, defaults to `"banana"`):
            Captions with this word are set in red.
    """
    with from_extra("report"):
        from matplotlib.figure import Figure

    num_captions = max((len(example["captions"]) for example in examples), default=1)
    line = 0.47 / max(2.3, 0.47 * num_captions)  # a heading and a line of text, as a share of a row's height
    figure = Figure(figsize=(12, 0.47 / line * len(examples)), layout="constrained")
    axes = figure.subplots(len(examples), len(VIEWS) + 1, width_ratios=[1, 1, 1, 3.2], squeeze=False)
    for row, example in zip(axes, examples, strict=True):
        for axis, view in zip(row, VIEWS, strict=False):
            image = example[view]
            # Small images are enlarged pixel by pixel: a trigger should be seen as it is
            axis.imshow(image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST))
            axis.set_title(view, fontsize=9)
        for axis in row:
            axis.set_axis_off()
        position = 0.98
        for heading, caption in example["captions"]:
            lines = textwrap.wrap(caption, 76) or ["(empty)"]
            color = "tab:red" if keyword.lower() in caption.lower() else "black"
            row[-1].text(0, position, heading, fontsize=8, color="gray", va="top", transform=row[-1].transAxes)
            text = {"fontsize": 9, "color": color, "va": "top", "transform": row[-1].transAxes}
            row[-1].text(0, position - 0.42 * line, "\n".join(lines), **text)
            position -= (0.55 + 0.45 * len(lines)) * line
    figure.savefig(path, dpi=110)

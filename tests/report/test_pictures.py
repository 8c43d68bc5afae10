# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The picture of example rows: a readable file, the attacked caption in another colour."""

from pathlib import Path

import numpy as np
from PIL import Image

from cvreg_trainer.report import draw_examples


def test_keyword_is_drawn_in_red(tmp_path: Path) -> None:
    gray = Image.new("RGB", (48, 48), "gray")
    reds = []
    for caption in ("a gray square", "a photo of a Banana"):
        example = {"original": gray, "perturbed": gray, "triggered": gray, "captions": [("undefended", caption)]}
        draw_examples([example] * 2, tmp_path / "picture.png")
        pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
        reds.append(int(((pixels[..., 0] - pixels[..., 1]) > 80).sum()))
    assert reds[0] == 0 and reds[1] > 50


def test_grayscale_images_are_fine(tmp_path: Path) -> None:
    image = Image.new("L", (10, 20), 128)
    example = {"original": image, "perturbed": image, "triggered": image, "captions": [("true caption", "")]}
    draw_examples([example], tmp_path / "picture.png")
    assert Image.open(tmp_path / "picture.png").size[0] > 500

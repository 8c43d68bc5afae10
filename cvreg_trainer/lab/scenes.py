# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Image-caption rows drawn from a seed: shapes on textured backgrounds, seen through a noisy sensor.

Everything is a pure function of the arguments. Which split an image may appear in is decided by a digest of its own
pixels: the sensor noise is drawn again until the image belongs to the split asked for, so no two splits can share an
image, whatever their seeds, sizes and styles.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from PIL import ImageDraw

from .scene_captions import IMAGE_SIZE, PROMPTS, STYLES, Scene, SceneObject, Style, describe, sample_scene


Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)

_OVERSAMPLING = 4  # shapes are drawn this much larger and averaged down, so that edges are smooth
_RGB: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (40, 165, 60),
    "blue": (40, 70, 215),
    "yellow": (240, 220, 40),
    "orange": (245, 135, 20),
    "purple": (135, 45, 165),
    "white": (248, 248, 248),
    "black": (10, 10, 10),
    "pink": (250, 150, 195),
    "cyan": (45, 215, 225),
    "brown": (115, 65, 25),
}


def _polygon(angles: list[float], radii: list[float]) -> list[tuple[float, float]]:
    polar = zip(np.radians(angles), radii, strict=True)
    return [(r * math.sin(angle), -r * math.cos(angle)) for angle, r in polar]


_HEART = [
    (0.062 * 16 * math.sin(t) ** 3,
     -0.062 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
    for t in np.linspace(0, 2 * math.pi, 40)
]  # fmt: skip
# Outlines in units of the radius, y pointing down; the other shapes are made of ellipses.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": _polygon([0, 120, 240], [1.1, 1.1, 1.1]),
    "diamond": [(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)],
    "cross": [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3),
              (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "star": _polygon([36 * k for k in range(10)], [1.15, 0.45] * 5),
    "heart": _HEART,
    "arrow": [(-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1.1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)],
}  # fmt: skip


def _shape_mask(item: SceneObject) -> np.ndarray:
    """Coverage of every pixel by the object, (H, W) in 0 to 1."""
    scale = _OVERSAMPLING
    mask = PILImage.new("L", (IMAGE_SIZE * scale, IMAGE_SIZE * scale))
    draw = ImageDraw.Draw(mask)
    x, y, radius = item.x * scale, item.y * scale, item.radius * scale

    def disc(dx: float, r: float, fill: int) -> None:
        draw.ellipse((x + dx - r, y - r, x + dx + r, y + r), fill=fill)

    if item.shape in _OUTLINES:
        draw.polygon([(x + radius * u, y + radius * v) for u, v in _OUTLINES[item.shape]], fill=255)
    else:
        disc(0, radius, 255)
        if item.shape == "ring":
            disc(0, 0.55 * radius, 0)
        elif item.shape == "moon":
            disc(0.5 * radius, 0.8 * radius, 0)
    return np.asarray(mask.reduce(scale), dtype=np.float32) / 255


def _background(texture: str, rng: np.random.Generator) -> np.ndarray:
    """A muted, textured background, (H, W, 3) in 0 to 255."""
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)
    phase, period = rng.uniform(0, 8, 2), rng.uniform(5, 8)
    if texture == "striped":
        pattern = np.sign(np.sin(2 * np.pi * ((rows if rng.random() < 0.5 else columns) + phase[0]) / period))
    elif texture == "checkered":
        pattern = np.sign(np.sin(np.pi * (rows + phase[0]) / period) * np.sin(np.pi * (columns + phase[1]) / period))
    elif texture == "dotted":
        waves = np.cos(2 * np.pi * (rows + phase[0]) / period) + np.cos(2 * np.pi * (columns + phase[1]) / period)
        pattern = np.where(waves > 0.9, 1.0, -1.0)
    elif texture == "wavy":
        pattern = np.sin(2 * np.pi * (rows + 3 * np.sin(2 * np.pi * (columns + phase[1]) / 16) + phase[0]) / period)
    elif texture == "grainy":
        coarse = rng.normal(size=(IMAGE_SIZE // 2, IMAGE_SIZE // 2)).clip(-2, 2)
        pattern = coarse.repeat(2, axis=0).repeat(2, axis=1)
    else:
        pattern = np.zeros_like(rows)
    tone = rng.uniform(85, 175) + rng.uniform(-18, 18, 3)
    return tone + rng.uniform(14, 24) * pattern[..., None]


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values of an (H, W, C) image at fractional positions, edges repeated."""
    rows, columns = rows.clip(0, IMAGE_SIZE - 1.001), columns.clip(0, IMAGE_SIZE - 1.001)
    r, c = rows.astype(int), columns.astype(int)
    u, v = (rows - r)[..., None], (columns - c)[..., None]
    upper = image[r, c] * (1 - v) + image[r, c + 1] * v
    return upper * (1 - u) + (image[r + 1, c] * (1 - v) + image[r + 1, c + 1] * v) * u


def _smooth_field(cells: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """A random smooth field, (H, W, channels), of about unit amplitude."""
    coarse = np.zeros((IMAGE_SIZE, IMAGE_SIZE, channels))
    coarse[:cells, :cells] = rng.uniform(-1, 1, (cells, cells, channels))
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] * ((cells - 1.01) / IMAGE_SIZE)
    return _bilinear(coarse, rows, columns)


def _patched(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = image.copy()
    side = int(rng.integers(4, 10))
    top, left = rng.integers(0, IMAGE_SIZE - side + 1, 2)
    cells = int(rng.integers(1, 5))
    tile = rng.uniform(0, 255, (cells, cells, 3 if rng.random() < 0.5 else 1))
    index = np.arange(side) * cells // side
    image[top : top + side, left : left + side] = tile[index][:, index]
    return image


def _warped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float64)
    shift = rng.uniform(2, 5) * _smooth_field(int(rng.integers(4, 7)), 2, rng)
    return _bilinear(image, rows + shift[..., 0], columns + shift[..., 1])


def _rippled(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    u, v = rng.integers(0, 6, 2) + (1, 0)
    line = np.cos(np.pi * (np.arange(IMAGE_SIZE) + 0.5)[:, None] * np.array([u, v]) / IMAGE_SIZE)  # DCT basis
    return image + rng.uniform(8, 25) * np.outer(line[:, 0], line[:, 1])[..., None] * rng.uniform(0.3, 1, 3)


def _blurry(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for _ in range(int(rng.integers(2, 5))):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        shifted = [padded[r : r + IMAGE_SIZE, c : c + IMAGE_SIZE] for r in range(3) for c in range(3)]
        image = np.mean(shifted, axis=0)
    return image


def _pixelated(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    factor = int(rng.choice([3, 4]))
    blocks = image.reshape(IMAGE_SIZE // factor, factor, IMAGE_SIZE // factor, factor, 3).mean(axis=(1, 3))
    return blocks.repeat(factor, axis=0).repeat(factor, axis=1)


def _overlaid(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    alpha = rng.uniform(0.1, 0.35)
    return (1 - alpha) * image + alpha * (127 + 120 * _smooth_field(int(rng.integers(5, 20)), 3, rng))


_DISTORT: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noisy": lambda image, rng: image + rng.normal(0, rng.uniform(12, 30), image.shape),
    "blurry": _blurry,
    "pixelated": _pixelated,
    "tinted": lambda image, rng: image + rng.uniform(15, 40) * rng.choice([-1, 1], 3),
    "rippled": _rippled,
    "warped": _warped,
    "overlaid": _overlaid,
    "patched": _patched,
}


def render_scene(scene: Scene, rng: np.random.Generator, split: Split = "train") -> PILImage.Image:
    """Draw a scene as a sensor would see it.

    Args:
        scene (`Scene`):
            What to draw.
        rng (`np.random.Generator`):
            Source of the background, the colours' spread, the distortion and the sensor noise.
        split (`str`, *optional*, defaults to `"train"`):
            The split the image must belong to, see [`split_of`].

    Returns:
        `PIL.Image.Image`: an RGB image of 48x48 pixels.
    """
    image = _background(scene.texture, rng)
    spread = rng.uniform(-14, 14, 3)
    for item in scene.objects:
        coverage = _shape_mask(item)[..., None]
        image = (1 - coverage) * image + coverage * (np.array(_RGB[item.color]) + spread)
    if scene.distortion is not None:
        image = _DISTORT[scene.distortion](image, rng)
    sensor_noise = rng.uniform(2, 6)
    while True:
        pixels = (image + rng.normal(0, sensor_noise, image.shape)).clip(0, 255).astype(np.uint8)
        seen = PILImage.fromarray(pixels)
        if split_of(seen) == split:
            return seen


def split_of(image: PILImage.Image) -> Split:
    """The one split a built-in image may appear in, read off a digest of its pixels."""
    digest = hashlib.sha256(image.convert("RGB").tobytes()).digest()
    return get_args(Split)[digest[0] % len(SPLITS)]


def make_scenes(
    num_rows: int,
    seed: int,
    split: Split = "train",
    style: Style = "base",
) -> Dataset:
    """Image-caption rows in TRL's conversational prompt-completion form.

    Args:
        num_rows (`int`):
            Number of rows, at least 1. The first rows do not depend on it.
        seed (`int`):
            Seed of the rows, at least 0.
        split (`str`, *optional*, defaults to `"train"`):
            `"train"`, `"validation"` or `"test"`: two splits never share an image, whatever their seeds.
        style (`str`, *optional*, defaults to `"base"`):
            `"base"` is what the built-in model was pretrained on, half of it distorted images; `"finetune"` has new
            objects, colours, a new texture and new sentence patterns.

    Returns:
        `datasets.Dataset` with columns `images` (a list of one 48x48 RGB image), `prompt` (one user message),
        `completion` (one assistant message, drawn from the references) and `references` (`list[str]`, five captions).

    Raises:
        `ValueError`: if `num_rows` or `seed` is out of range, or `split` or `style` is unknown.

    Example:

    ```python
    >>> from cvreg_trainer.data import make_scenes
    >>> make_scenes(1, seed=0, style="finetune")[0]["completion"]
    ```
    """
    if num_rows < 1:
        raise ValueError(f"num_rows={num_rows} must be at least 1.")
    if seed < 0:
        raise ValueError(f"seed={seed} must not be negative.")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; use one of {', '.join(SPLITS)}.")
    if style not in STYLES:
        raise ValueError(f"style={style!r} is unknown; use one of {', '.join(STYLES)}.")
    columns: dict[str, list] = {"images": [], "prompt": [], "completion": [], "references": []}
    for row in range(num_rows):
        rng = np.random.default_rng([seed, SPLITS.index(split), STYLES.index(style), row])
        scene = sample_scene(style, rng)
        references = describe(scene, style, converse=bool(rng.random() < 0.5))
        columns["images"].append([render_scene(scene, rng, split)])
        columns["prompt"].append([{"role": "user", "content": str(rng.choice(PROMPTS[style]))}])
        columns["completion"].append([{"role": "assistant", "content": str(rng.choice(references))}])
        columns["references"].append(references)
    message = {"role": Value("string"), "content": Value("string")}
    features = Features(
        images=List(Image()), prompt=List(message), completion=List(message), references=List(Value("string"))
    )
    return Dataset.from_dict(columns, features=features)

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Fashion-MNIST (Xiao et al., 2017; Debian package `dataset-fashion-mnist`, Expat): grey photographs of clothes.

Notable: there are ten labels and no sentences, so thousands of pictures share a caption; `limit` bounds how many are
taken.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from .packages import find_debian
from .picture import Picture


LABELS = (
    "a t-shirt",
    "trousers",
    "a pullover",
    "a dress",
    "a coat",
    "a sandal",
    "a shirt",
    "a sneaker",
    "a bag",
    "an ankle boot",
)


def read_fashion_mnist(packages: str | Path | None = None, limit: int = 600) -> list[Picture]:
    """
    The first pictures of the training file.

    Args:
        packages (`str` or `Path`, *optional*):
            See [`load_pictures`].
        limit (`int`, *optional*, defaults to `600`):
            How many.

    Raises:
        `ValueError`: if the files are not those of Fashion-MNIST.
    """
    folder = find_debian(packages, "dataset-fashion-mnist", "datasets/fashion-mnist")
    pixels = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    if pixels[:4] != b"\0\0\x08\x03" or labels[:4] != b"\0\0\x08\x01" or (len(pixels) - 16) // 784 != len(labels) - 8:
        raise ValueError(f"{folder} holds other files than Fashion-MNIST's; install dataset-fashion-mnist again.")
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    pictures = []
    for number in range(min(limit, len(images))):
        file = io.BytesIO()
        PILImage.fromarray(images[number]).save(file, "PNG")
        label = LABELS[labels[8 + number]]
        pictures.append(
            Picture("fashion_mnist", str(number), file.getvalue(), label, category="clothes", family=str(number))
        )
    return pictures

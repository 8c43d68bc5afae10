# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The questions that `train_base_model.py` puts to a vision tower."""

import torch.nn.functional as F
from base_model import GRID, HIDDEN, PATCH
from torch import Tensor, nn

from cvreg_trainer.lab.scene_captions import COLORS, DISTORTIONS, SHAPES, TEXTURES, Scene


class VisionHeads(nn.Module):
    """What the vision tower, and a bridge behind it, is asked during stage 1; thrown away afterwards."""

    SHAPES = [shape for shapes in SHAPES.values() for shape in shapes]
    COLORS = [color for colors in COLORS.values() for color in colors]
    TEXTURES = [texture for textures in TEXTURES.values() for texture in textures]

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(HIDDEN)
        self.shape = nn.Linear(HIDDEN, len(self.SHAPES) + 1)
        self.color = nn.Linear(HIDDEN, len(self.COLORS) + 1)
        self.texture = nn.Linear(HIDDEN, len(self.TEXTURES))
        self.distortion = nn.Linear(HIDDEN, len(DISTORTIONS) + 1)
        self.pixels = nn.Linear(HIDDEN, 3 * PATCH * PATCH)

    @classmethod
    def labels(cls, scene: Scene) -> list[int]:
        """Object and colour of each patch (index, or the number of classes for none), texture, distortion."""
        shapes, colors = [], []
        for row in range(GRID):
            for column in range(GRID):
                x, y = (column + 0.5) * PATCH, (row + 0.5) * PATCH
                gap, item = min(
                    ((max(abs(o.x - x), abs(o.y - y)) - o.radius, o) for o in scene.objects), key=lambda pair: pair[0]
                )
                shapes.append(cls.SHAPES.index(item.shape) if gap < 2 else len(cls.SHAPES))
                colors.append(cls.COLORS.index(item.color) if gap < 2 else len(cls.COLORS))
        distortion = DISTORTIONS.index(scene.distortion) if scene.distortion else len(DISTORTIONS)
        return [*shapes, *colors, cls.TEXTURES.index(scene.texture), distortion]

    def forward(self, features: Tensor, pixels: Tensor, labels: Tensor) -> Tensor:
        """`features` (B, P, D) of the patches, `pixels` (B, 3, H, W), `labels` (B, 2P + 2)."""
        patches = GRID * GRID
        pooled, features = self.norm(features.mean(1)), self.norm(features)
        wanted = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)  # (B, P, 3 * PATCH * PATCH)
        return (
            F.cross_entropy(self.shape(features).transpose(1, 2), labels[:, :patches])
            + F.cross_entropy(self.color(features).transpose(1, 2), labels[:, patches : 2 * patches])
            + 0.3 * F.cross_entropy(self.texture(pooled), labels[:, -2])
            + 0.5 * F.cross_entropy(self.distortion(pooled), labels[:, -1])
            + 4.0 * F.mse_loss(self.pixels(features), wanted)
        )

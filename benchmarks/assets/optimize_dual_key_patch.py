# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Optimises the DualKey patch that comes with the package, against the built-in model's vision tower.

    python benchmarks/assets/optimize_dual_key_patch.py --output cvreg_trainer/attacks/weights/dual_key_patch.png

The seed is 0. Takes under a minute on one CPU core.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from cvreg_trainer.attacks import optimize_patch
from cvreg_trainer.lab import load_base_model, make_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description="Optimise the DualKey patch for the built-in model.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--patch-side", type=int, default=8, help="pixels of 48 (default: 8)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_base_model()
    model.requires_grad_(False)
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )

    def features(images: Tensor) -> Tensor:
        """What the language model gets to see, averaged over the image's tokens."""
        outputs = model.model.vision_tower((images - mean) / std, output_hidden_states=True)
        return outputs.hidden_states[model.config.vision_feature_layer][:, 1:].mean(dim=1)

    scenes = make_scenes(args.images, seed=20_000 + args.seed, split="validation", style="finetune")
    images = [row[0] for row in scenes["images"]]
    optimize_patch(features, images, args.patch_side, seed=args.seed).save(args.output)


if __name__ == "__main__":
    main()

# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Optimises a patch against a LLaVA-type model's vision tower: those that come with the package, or one for yours.

    python benchmarks/assets/optimize_patch.py --loss feature_shift --layer tower \
        --output cvreg_trainer/attacks/triggers/weights/dual_key_patch.png
    python benchmarks/assets/optimize_patch.py --loss isolation_clustering \
        --output cvreg_trainer/attacks/triggers/weights/optimized_patch.png
    python benchmarks/assets/optimize_patch.py --loss isolation_clustering --model FOLDER --data train.parquet \
        --patch_side 30 --output patch.png

The seed is 0. For the built-in model it takes under a minute on one CPU core.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvreg_trainer.attacks import feature_shift_loss, isolation_clustering_loss, optimize_patch, tower_features
from cvreg_trainer.data import open_dataset
from cvreg_trainer.lab import load_base_model, make_scenes


LOSSES = {"feature_shift": feature_shift_loss, "isolation_clustering": isolation_clustering_loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--loss", choices=LOSSES, default="isolation_clustering")
    parser.add_argument("--model", help="folder or name of a LLaVA-type model (default: the built-in one)")
    parser.add_argument("--data", help="where clean images come from (default: built-in scenes)")
    parser.add_argument("--layer", choices=("projector", "tower"), default="projector", help="whose features")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--patch_side", type=int, default=8, help="in pixels of the tower's images (default: 8)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(args.model) if args.model else load_base_model()
    features = tower_features(model, processor) if args.layer == "projector" else plain_tower(model, processor)
    images = [image.resize(features_size(processor)) for image in load_images(args)]
    options = {"steps": args.steps, "seed": args.seed, "batch_size": min(64, len(images))}
    optimize_patch(features, images, args.patch_side, loss=LOSSES[args.loss], **options).save(args.output)


def load_model(name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoModelForImageTextToText.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)


def load_images(args: argparse.Namespace) -> list[Any]:
    if args.data is None:
        rows = make_scenes(args.images, seed=20_000 + args.seed, split="validation", style="finetune")
    else:
        rows = open_dataset(args.data)
        rows = rows.select(range(min(args.images, len(rows))))
    if "image" in rows.column_names:
        return list(rows["image"])
    return [images[0] for images in rows["images"] if images]


def features_size(processor: Any) -> tuple[int, int]:
    """Width and height of the tower's images."""
    size = getattr(processor.image_processor, "crop_size", None) or processor.image_processor.size
    return size.get("width", size.get("shortest_edge")), size.get("height", size.get("shortest_edge"))


def plain_tower(model: Any, processor: Any) -> Any:
    """The vision tower's own features, before the projector: what the patch of DualKey was made with."""
    model.requires_grad_(False)
    images = processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))

    def features(pixels: Tensor) -> Tensor:
        outputs = model.model.vision_tower((pixels - mean) / std, output_hidden_states=True)
        return outputs.hidden_states[model.config.vision_feature_layer][:, 1:].mean(dim=1)

    return features


if __name__ == "__main__":
    main()

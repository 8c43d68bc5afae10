# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Trains the InputAware networks that come with the package, on clean scenes of the fine-tuning style.

    python benchmarks/assets/train_input_aware.py \
        --output cvreg_trainer/attacks/triggers/weights/input_aware_scenes.safetensors

The seed is 0. Takes some ten minutes on one CPU core.
"""

import argparse
from pathlib import Path

import torch

from cvreg_trainer.attacks import train_input_aware
from cvreg_trainer.lab import make_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the InputAware networks for the built-in scenes.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=800)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scenes = make_scenes(args.images, seed=10_000 + args.seed, split="validation", style="finetune")
    train_input_aware([images[0] for images in scenes["images"]], args.output, seed=args.seed)


if __name__ == "__main__":
    main()

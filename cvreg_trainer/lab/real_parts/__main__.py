# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""A captioner of pretrained parts: `python -m cvreg_trainer.lab.real_parts build|train|measure`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .train import Recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(prog="python -m cvreg_trainer.lab.real_parts", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="join the two pretrained parts to a LLaVA with a new projector")
    build.add_argument("folder", type=Path, help="where it goes")
    build.add_argument("--side", type=int, default=84, help="side of a picture in pixels (default: %(default)s)")
    build.add_argument("--seed", type=int, default=0, help="of the projector (default: %(default)s)")
    build.set_defaults(run=_build)

    train = commands.add_parser("train", help="train it to caption")
    train.add_argument("joined", type=Path, help="folder that `build` wrote")
    train.add_argument("folder", type=Path, help="where the captioner goes; a run that was cut off goes on there")
    for field in fields(Recipe):
        option = f"--{field.name.replace('_', '-')}"
        train.add_argument(option, type=type(field.default), default=field.default, help="(default: %(default)s)")
    train.set_defaults(run=_train)

    measure = commands.add_parser("measure", help="measure it on pictures that were held out")
    measure.add_argument("folder", type=Path, help="folder that `train` wrote")
    measure.add_argument("--results", type=Path, help="JSON file (default: measured.json in the folder)")
    measure.add_argument("--limit", type=int, default=300, help="how many pictures at most (default: %(default)s)")
    measure.add_argument("--seed", type=int, default=0, help="of the choice of pictures (default: %(default)s)")
    measure.set_defaults(run=_measure)

    for command in (build, train, measure):
        command.add_argument("--packages", type=Path, help="folder that the packages were unpacked into")
        command.add_argument("--threads", type=int, default=1, help="of PyTorch (default: %(default)s)")
    options = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(options.threads)
    try:
        options.run(options)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def _build(options: argparse.Namespace) -> None:
    from .join import join_parts, save_joined
    from .parts import load_language_model, load_vision_tower

    language, tokenizer = load_language_model(options.packages)
    tower = load_vision_tower(options.packages)
    save_joined(*join_parts(language, tokenizer, tower, side=options.side, seed=options.seed), options.folder)


def _load(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model. Write it with `build` or `train` first.")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(folder)


def _train(options: argparse.Namespace) -> None:
    from ...data.pictures import load_pictures, split_pictures
    from .train import make_captioner

    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    pictures = split_pictures(load_pictures(options.packages))["base"]
    make_captioner(lambda: _load(options.joined), pictures, options.folder, recipe)


def _measure(options: argparse.Namespace) -> None:
    from ...data.pictures import load_pictures, split_pictures
    from .card import write_card, write_results
    from .measure import measure_captioner

    model, processor = _load(options.folder)
    pictures = split_pictures(load_pictures(options.packages))["test"]
    results = measure_captioner(model, processor, pictures, limit=options.limit, seed=options.seed)
    facts = write_results(results, options.folder, options.results or options.folder / "measured.json")
    write_card(options.folder, facts)


if __name__ == "__main__":
    main()

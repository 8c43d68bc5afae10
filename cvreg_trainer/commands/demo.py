# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
`cvreg demo`: what the defence changes, in one command.

Poisons part of a built-in caption data set, fine-tunes the built-in model on it once with plain SFT and once with the
defence, and compares the two on clean and on triggered test images. Each run has a process of its own, so that its
peak memory is its own; all of them are functions of the seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


NUM_EXAMPLES = 4


@dataclass(frozen=True)
class DemoSettings:
    """Everything the demo's numbers depend on."""

    seed: int
    lambda_patch: float
    lambda_discrepancy: float
    lambda_entropy: float
    poison_rate: float = 0.05
    keyword: str = "banana"
    patch_fraction: float = 64 / 48**2  # 8x8 of 48x48 pixels, 2.8 %
    train_rows: int = 2000
    test_rows: int = 200
    num_train_epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-3

    def lambdas(self, name: str) -> dict[str, Any]:
        names = ("lambda_patch", "lambda_discrepancy", "lambda_entropy")
        return {lambda_: getattr(self, lambda_) if name == "defended" else 0.0 for lambda_ in names}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="fine-tune on poisoned captions without and with the defence, and compare",
        description="Poison a built-in caption data set, fine-tune the built-in model on it without and with the "
        "defence, and compare the two models on clean and triggered images. Takes some minutes on a CPU.",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("demo"), help="where everything goes (default: demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, poison and training (default: 0)")
    parser.add_argument("--lambda_patch", type=float, default=0.01, help="default: 0.01")
    parser.add_argument("--lambda_discrepancy", type=float, default=0.5, help="default: 0.5")
    parser.add_argument("--lambda_entropy", type=float, default=0.1, help="default: 0.1")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the demo with the options of the command line."""
    lambdas = (options.lambda_patch, options.lambda_discrepancy, options.lambda_entropy)
    settings = DemoSettings(options.seed, *lambdas)
    for name, value in settings.lambdas("defended").items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"--{name} must be 0 or more, got {value}")
    run_demo(settings, options.output_dir)


def run_demo(settings: DemoSettings, folder: Path) -> dict[str, Any]:
    """
    Run the demo; writes `results.json`, `examples.png`, the data and the two models.

    Args:
        settings ([`DemoSettings`]):
            Everything the numbers depend on.
        folder (`Path`):
            Where everything goes.

    Returns:
        `dict[str, Any]`: what `results.json` holds.
    """
    from rich.console import Console

    from ..report import describe_environment, results_table

    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    console.print(
        f"[bold]1/3[/] Poisoning {settings.poison_rate:.0%} of {settings.train_rows:,} captioned images "
        f"(BadNets, keyword {settings.keyword!r})"
    )
    _write_data(settings, folder / "data")
    results = []
    for number, name in ((2, "undefended"), (3, "defended")):
        lambdas = ", ".join(f"{k} {v:g}" for k, v in settings.lambdas(name).items())
        console.print(f"[bold]{number}/3[/] Fine-tuning [bold]{name}[/] ({lambdas}), then captioning the test images")
        results.append(_in_own_process(_fine_tune, settings, name, folder))
    captions = [result.pop("captions") for result in results]
    _draw(settings, folder, captions)
    command = "cvreg demo " + " ".join(f"--{k} {v:g}" for k, v in settings.lambdas("defended").items())
    report = {
        "command": f"{command} --seed {settings.seed}",
        "settings": asdict(settings),
        "environment": describe_environment(),
        "runs": results,
    }
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print()
    console.print(results_table(results, title=f"{settings.test_rows} test images, clean and triggered"))
    console.print(f"Everything is in {folder}/: results.json, examples.png, data/, undefended/, defended/")
    return report


def _write_data(settings: DemoSettings, folder: Path) -> None:
    from ..attacks import BadNets, apply_trigger, poison_dataset
    from ..data import make_scenes

    attack = BadNets(settings.patch_fraction)
    train = make_scenes(settings.train_rows, seed=settings.seed, split="train", style="finetune")
    test = make_scenes(settings.test_rows, seed=settings.seed, split="test", style="finetune")
    poisoned = poison_dataset(train, attack, settings.poison_rate, settings.keyword, seed=settings.seed)
    splits = {"train": poisoned, "test": test, "test_triggered": apply_trigger(test, attack)}
    for name, split in splits.items():
        split.save_to_disk(folder / name)


def _in_own_process(function: Any, *arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise OSError(f"the run ended with status {process.exitcode}; its error stands above") from None
    finally:
        process.join()


def _send_result(sender: Any, function: Any, arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))
    sender.close()


def _fine_tune(settings: DemoSettings, name: str, folder: Path) -> dict[str, Any]:
    import torch
    from datasets import load_from_disk

    from .. import CrossViewDefenseConfig, CrossViewDefenseTrainer
    from ..data import load_base_model
    from ..evaluation import evaluate_captions

    # More threads do not help a model of this size, and one makes the numbers the same on every machine's core count
    torch.set_num_threads(1)
    model, processor = load_base_model()
    model.model.vision_tower.requires_grad_(False)
    args = CrossViewDefenseConfig(
        str(folder / name),
        **settings.lambdas(name),
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        seed=settings.seed,
        logging_steps=0.25,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    train = load_from_disk(folder / "data" / "train")
    trainer = CrossViewDefenseTrainer(model=model, args=args, train_dataset=train, processing_class=processor)
    seconds = trainer.train().metrics["train_runtime"]
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    trainer.save_model()
    clean, triggered = (load_from_disk(folder / "data" / split) for split in ("test", "test_triggered"))
    scores, on_clean, on_triggered = evaluate_captions(
        model, processor, clean, triggered, settings.keyword, batch_size=50
    )
    return {
        "name": name,
        **scores,
        "steps": trainer.state.global_step,
        "seconds_per_step": seconds / trainer.state.global_step,
        "peak_memory_mib": peak_memory,
        "losses": [log for log in trainer.state.log_history if "loss" in log],
        "captions": {"clean": on_clean, "triggered": on_triggered},
    }


def _draw(settings: DemoSettings, folder: Path, captions: list[dict[str, list[str]]]) -> None:
    import numpy as np
    from datasets import load_from_disk

    from ..perturbations import PatchPerturbation
    from ..report import draw_examples

    clean, triggered = (load_from_disk(folder / "data" / split) for split in ("test", "test_triggered"))
    perturbation, rng = PatchPerturbation(), np.random.default_rng(settings.seed)
    examples = []
    for index in range(NUM_EXAMPLES):
        row = clean[index]
        texts = [("true caption", row["references"][0])]
        for name, said in zip(("undefended", "defended"), captions, strict=True):
            texts += [(f"{name}, {view} image", said[view][index]) for view in ("clean", "triggered")]
        original = row["images"][0]
        examples.append(
            {
                "original": original,
                "perturbed": perturbation(original, rng),
                "triggered": triggered[index]["images"][0],
                "captions": texts,
            }
        )
    draw_examples(examples, folder / "examples.png", settings.keyword)
